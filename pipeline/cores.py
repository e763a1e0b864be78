"""Cores that this process may use: its affinity, and the time that its control group grants.

In a container with a quota the affinity still names all cores of the machine; one thread for each of
them would spend the quota at once and then wait.
"""

import math
import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
# read by torch, NumPy and Numba when they are imported
_THREADS = "OMP_NUM_THREADS"
_POLICY, _TURNS = "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"


def num_cores() -> int:
    """How many threads or processes can work at once; at least 1."""
    cores, quota = len(os.sched_getaffinity(0)), quota_cores()
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def limit_threads() -> None:
    """Have libraries that are imported later start no more threads than a quota allows.

    And have a thread that waits for others sleep soon. By default it spins 300,000 times, which on a core
    that it shares with the thread it waits for makes a training up to ten times slower. 1,000 times is what
    libgomp itself chooses if there are more threads than cores; it does not know of other processes.
    """
    if num_cores() < len(os.sched_getaffinity(0)):
        os.environ.setdefault(_THREADS, str(num_cores()))
    if _POLICY not in os.environ:
        os.environ.setdefault(_TURNS, "1000")


def quota_cores() -> float | None:
    """Cores' worth of time that the control group grants; None without a limit."""
    limits = []
    for folder in control_groups("cpu"):
        quota, _, period = read_limit(folder / "cpu.max").partition(" ")
        quota = quota or read_limit(folder / "cpu.cfs_quota_us")
        period = period or read_limit(folder / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit() and int(period):
            limits.append(int(quota) / int(period))
    return min(limits, default=None)


def control_groups(controller: str) -> list[Path]:
    """This process's control group and those around it, of either version."""
    for line in read_limit(Path("/proc/self/cgroup")).splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers or controller in controllers.split(","):
            root = _CGROUP / (controllers if controllers else "")
            own = root / path.lstrip("/")
            # in a container this may be the host's path, which does not exist
            around = [p for p in [own, *own.parents] if p.is_relative_to(root)]
            found = [p for p in [*around, _CGROUP / controller] if p.is_dir()]
            if found:
                return found
    return []


def read_limit(path: Path) -> str:
    """The text of a file of a control group; empty if it cannot be read."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
