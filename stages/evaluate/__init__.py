"""`rela eval`: measure the features of runs and priors.

In: runs or a prior, a data set, protocols. Out: `eval.json` and a table.
Begin with `evaluate.py`.
"""
