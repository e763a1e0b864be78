"""Wall and CPU seconds, compared with those of the `resource` module."""

import resource
import subprocess
import sys
import time

import pytest

from rela.pipeline.spent import Spent

BUSY = "import time\nwhile time.process_time() < 0.3: pass"


def test_the_work_of_threads_and_ended_children_counts_and_sleep_does_not():
    def used() -> float:
        kinds = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return sum(usage.ru_utime + usage.ru_stime for usage in kinds)

    start, before = Spent.now(), used()
    time.sleep(0.2)
    subprocess.run([sys.executable, "-c", BUSY], check=True)
    found, expected = Spent.now() - start, used() - before
    assert found.cpu_seconds == pytest.approx(expected, abs=0.05)
    assert found.cpu_seconds >= 0.25  # the kernel counts in ticks of 0.01
    assert found.seconds >= 0.5


def test_sums_and_differences():
    assert Spent() == Spent(0.0, 0.0)
    assert Spent(3.0, 1.0) + Spent(2.0, 4.0) - Spent(1.0, 0.5) == Spent(4.0, 4.5)
