"""Quality of features: k-NN, linear probes, fine-tuning, segmentation.

In: features, or a backbone and labelled images. Out: accuracies.
Begin with `protocols.py`, which lists every protocol with its settings.
"""
