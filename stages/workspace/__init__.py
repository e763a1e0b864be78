"""What a workspace holds: data sets, representations, targets, runs, evaluations.

In: a directory. Out: its artifacts and their facts, read and checked; nothing here makes one.
Begin with `workspace.py`.
"""
