"""The staged jobs: convert → embed → targets → train → evaluate → report.

In: a workspace and a request. Out: an artifact in that workspace for the next job.
Begin with `convert.py`, then `train/train.py`. Nouns (`workspace/`, `priors/`) never import jobs.
"""
