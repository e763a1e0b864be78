"""`rela export`: what was trained or cached → files for other programs.

In: a run, or the representations of a prior. Out: weights, or features with paths and labels.
Begin with `export.py`.
"""
