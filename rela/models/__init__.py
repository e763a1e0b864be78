"""Names and files to networks.

In: a model name or a checkpoint. Out: a backbone, its features, its preprocessing, its weight files.
Begin with `backbones.py`.
"""
