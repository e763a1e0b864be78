"""Processes that train or embed together.

In: the environment that torchrun, SLURM or `rela train` sets. Out: ranks, shards, a Lightning strategy.
Begin with `ranks.py`.
"""
