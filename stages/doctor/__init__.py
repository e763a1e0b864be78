"""`rela doctor`: whether rela can work on this machine.

In: the machine. Out: a list of checks, each with the command that fixes it.
Begin with `doctor.py`.
"""
