"""The method and its formats: images, betons, priors, targets, views, algorithms, probes.

Plain Python; nothing here knows of the command line, of workspaces or of stages.
"""
