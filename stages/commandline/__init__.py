"""What the commands of `cli.py` share.

In: request classes and results. Out: click options, shell completion, one-line errors.
Begin with `options.py`.
"""
