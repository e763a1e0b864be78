"""The staged jobs, one file each: convert → embed → targets → train → evaluate.

Each finds what the one before it left in the workspace, and leaves an artifact of its own.
"""
