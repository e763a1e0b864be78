"""Cores, memory and file system that the machine and its control group grant to a job."""

import fcntl
import os
import tempfile
from pathlib import Path

_CGROUP, _UNLIMITED = Path("/sys/fs/cgroup"), 1 << 60


def num_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0))


def quota_cores() -> float | None:
    """Cores' worth of time that the control group grants; None without a limit."""
    limits = []
    for folder in _groups("cpu"):
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        quota = quota or _read(folder / "cpu.cfs_quota_us")
        period = period or _read(folder / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit() and int(period):
            limits.append(int(quota) / int(period))
    return min(limits, default=None)


def memory_bytes() -> tuple[int, int]:
    """(total, free): of the machine, or of the control group if that has less."""
    known = {}
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        known[name] = 1024 * int(value.split()[0])
    total, free = known["MemTotal"], known["MemAvailable"]
    for folder in _groups("memory"):
        limit = _read(folder / "memory.max") or _read(folder / "memory.limit_in_bytes")
        used = _read(folder / "memory.current") or _read(folder / "memory.usage_in_bytes")
        if limit.isdigit() and used.isdigit() and int(limit) < min(total, _UNLIMITED):
            total, free = int(limit), min(free, int(limit) - int(used))
    return total, max(0, free)


def file_system(directory: Path) -> str:
    """The file system type of an existing directory, such as ext4 or nfs4."""
    device = os.stat(directory).st_dev
    wanted, resolved = f"{os.major(device)}:{os.minor(device)}", directory.resolve()
    best = ("", "unknown")
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        words, kind = before.split(" "), after.split(" ")[0]
        mount = words[4].encode().decode("unicode_escape")
        if words[2] == wanted and resolved.is_relative_to(mount) and len(mount) > len(best[0]):
            best = (mount, kind)
    return best[1]


def file_system_locks(directory: Path) -> int | None:
    """The error number of locking a file in `directory`; None if locking works."""
    with tempfile.TemporaryFile(dir=directory) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno
    return None


def writable_parent(path: Path) -> Path:
    """`path`, or its nearest existing parent directory."""
    return next((p for p in [path, *path.absolute().parents] if p.exists()), Path("/"))


def _groups(controller: str) -> list[Path]:
    """This process's control group and those around it, of either version."""
    for line in _read(Path("/proc/self/cgroup")).splitlines():
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


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
