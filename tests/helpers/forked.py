"""Processes that need not import PyTorch again: forks of one that has imported it and run nothing."""

import multiprocessing
from multiprocessing.context import ForkServerContext

PRELOADED = ["torch", "rela.training.run", "rela.methods", "pytest"]


def forked() -> ForkServerContext:
    """Where `Process` forks a process that has PyTorch and rela; the first use starts that one."""
    multiprocessing.set_forkserver_preload(PRELOADED)
    return multiprocessing.get_context("forkserver")
