"""`rela run`: the jobs and sweeps of a TOML recipe.

In: a recipe file. Out: jobs, their estimated cost, their results in one table.
Begin with `jobs.py`.
"""
