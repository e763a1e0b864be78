"""Freed memory is kept (rela.data.memory): the system, asked by getrusage, has no page to give."""

import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, resource, sys
import numpy as np
from rela.data.memory import keep_freed_memory

def pages_of_a_step():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    arrays = [np.ones(48 << 20, np.uint8) for _ in range(3)]
    del arrays
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if sys.argv[1] == "kept":
    keep_freed_memory()
pages_of_a_step()
print(pages_of_a_step())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="getrusage counts other things")
def test_a_second_step_asks_the_system_for_no_memory():
    pages = {
        kind: int(subprocess.check_output([sys.executable, "-c", PROGRAM, kind], text=True))
        for kind in ("kept", "given back")
    }
    assert pages["given back"] > 20  # else the test would tell nothing
    assert pages["kept"] < pages["given back"] / 10
