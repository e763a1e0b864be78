"""Measuring frozen features: k-nearest neighbours and linear probes."""
