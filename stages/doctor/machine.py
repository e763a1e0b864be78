"""Memory and file system that the machine and its control group grant to a job."""

import fcntl
import os
import tempfile
from pathlib import Path

from rela.pipeline.cores import control_groups, read_limit

_UNLIMITED = 1 << 60


def memory_bytes() -> tuple[int, int]:
    """(total, free): of the machine, or of the control group if that has less."""
    known = {}
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        known[name] = 1024 * int(value.split()[0])
    total, free = known["MemTotal"], known["MemAvailable"]
    for folder in control_groups("memory"):
        limit = read_limit(folder / "memory.max") or read_limit(folder / "memory.limit_in_bytes")
        used = read_limit(folder / "memory.current") or read_limit(folder / "memory.usage_in_bytes")
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
