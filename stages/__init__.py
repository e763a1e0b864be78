"""The staged jobs: convert → embed → targets → train → evaluate → report.

In: a workspace and a request. Out: an artifact in that workspace, which the next job finds.
Begin with `convert.py`, then `train/train.py`. Nouns (`workspace/`, `priors/`) never import jobs.
"""
