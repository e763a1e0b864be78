"""`rela embed`: represent every image of a data set by a prior, once.

In: a data set and a prior. Out: a representations artifact.
Begin with `embed.py`; `combine.py` joins several priors.
"""
