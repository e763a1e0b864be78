"""Cores and memory under the limits of a control group, of either version, made as files."""

import os
from pathlib import Path

import numpy as np
import pytest
from betons import in_memory

from rela.data.loader import ViewLoader
from rela.data.views import stage1_views
from rela.pipeline import cores
from rela.stages import convert
from rela.stages.doctor import doctor, machine
from rela.stages.doctor.doctor import OK

FILES = {
    2: {
        "jobs/7/cpu.max": "150000 100000",
        "jobs/7/memory.max": "1000",
        "jobs/7/memory.current": "400",
    },
    1: {
        "cpu,cpuacct/jobs/7/cpu.cfs_quota_us": "150000",
        "cpu,cpuacct/jobs/7/cpu.cfs_period_us": "100000",
        "memory/jobs/7/memory.limit_in_bytes": "1000",
        "memory/jobs/7/memory.usage_in_bytes": "400",
    },
}
LISTINGS = {2: "0::/jobs/7", 1: "4:cpu,cpuacct:/jobs/7\n3:memory:/jobs/7"}


@pytest.fixture(params=FILES)
def limited(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container with 1.5 cores and 1,000 bytes, on a machine with 64 cores."""
    for name, content in FILES[request.param].items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    read, listing = cores.read_limit, LISTINGS[request.param]

    def read_limit(path: Path) -> str:
        return listing if path == Path("/proc/self/cgroup") else read(path)

    monkeypatch.setattr(cores, "_CGROUP", tmp_path)
    monkeypatch.setattr(cores, "read_limit", read_limit)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set() if pid else set(range(64)))


@pytest.mark.usefixtures("limited")
def test_a_quota_limits_threads_and_processes(monkeypatch: pytest.MonkeyPatch):
    assert (cores.quota_cores(), cores.num_cores()) == (1.5, 2)
    assert machine.memory_bytes() == (1000, 600)
    (check,) = doctor._cores()
    assert (check.state, check.found) == (OK, "2 (1.5 granted by the control group)")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    cores.limit_threads()
    assert os.environ["OMP_NUM_THREADS"] == "1"  # the user's choice
    monkeypatch.delenv("OMP_NUM_THREADS")
    cores.limit_threads()
    assert os.environ["OMP_NUM_THREADS"] == "2"


@pytest.mark.usefixtures("limited")
def test_more_workers_than_cores_can_feed_are_not_started():
    said: list[str] = []
    chosen = [convert._num_workers(n, said.append) for n in (None, 1, 8, 64)]
    assert chosen == [2, 1, 8, 8]
    assert said == [
        f"--workers {n}: this process may use 2 cores; 8 are started, and more than 2 only compete"
        for n in (8, 64)
    ]


@pytest.mark.usefixtures("limited")
def test_a_loader_starts_as_many_threads_as_are_granted():
    beton = in_memory([np.zeros((8, 8, 3), np.uint8)] * 3)
    assert ViewLoader(beton, (stage1_views(8),), 2).num_threads == 2
    assert ViewLoader(beton, (stage1_views(8),), 2, num_threads=5).num_threads == 5


def test_without_a_quota_every_core_of_the_affinity_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cores, "_CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set() if pid else {3, 5, 6})
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    cores.limit_threads()
    assert cores.num_cores() == 3 and "OMP_NUM_THREADS" not in os.environ


@pytest.mark.parametrize(
    ("given", "turns"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "5"}, "5"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)],
)
def test_a_waiting_thread_sleeps_soon_unless_the_user_chose(
    given: dict[str, str], turns: str | None, monkeypatch: pytest.MonkeyPatch
):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    cores.limit_threads()
    assert os.environ.get("GOMP_SPINCOUNT") == turns
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
