"""`rela embed`: embed every image of a data set with a prior, once.

In: a data set and a prior. Out: a representations artifact.
Begin with `embed.py`; `combine.py` joins several priors.
"""
