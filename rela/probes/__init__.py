"""Measuring models: k-nearest neighbours, linear probes, fine-tuning, semantic segmentation."""
