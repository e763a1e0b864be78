"""Training in two stages: regress the targets, hand over, run the algorithm.

In: a beton, targets, `settings.py`. Out: a trained backbone, checkpoints and records in a run directory.
Begin with `run.py`, then `two_stage.py` and `handover.py`.
"""
