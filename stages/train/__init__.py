"""`rela train`: find, resume or start a run.

In: a data set, cached representations, settings. Out: a run artifact.
Begin with `train.py`.
"""
