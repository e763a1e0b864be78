"""Owners: the process to which unfinished work belongs, and whether it is still running.

The name of an unfinished directory or file ends with `@`, its host and its process id, so that the next job
can tell abandoned work from work in progress.
"""

import os
import re
from pathlib import Path

_DIGITS = re.compile("[0-9]{1,100}")


def owner_token() -> str:
    """HOST-PID-RANDOM: this process, and a part unique to this call."""
    return f"{_host()}-{os.getpid()}-{os.urandom(4).hex()}"


def is_gone(token: str) -> bool:
    """Whether the owner is a process of this host that has ended; False for other hosts."""
    host, pid = _host_and_pid(token)
    if host != _host() or not _DIGITS.fullmatch(pid):
        return False
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):  # no process id is that large
        return True
    except OSError:  # it is running, as another user
        return False
    return False


def describe(token: str) -> str:
    """Describe the owner: "process 1234 on node7"."""
    host, pid = _host_and_pid(token)
    return printable(f"process {pid} on {host.rpartition('~')[0] or host}")


def printable(text: str) -> str:
    """`text` without line breaks and control characters, since a file may hold anything."""
    return "".join(character if character.isprintable() else "?" for character in text)


def is_abandoned(path: Path, used_before: float = 0.0) -> bool:
    """Whether the owner in the name of `path` has ended.

    On this host the process is looked up; work of other hosts is abandoned if its last change was before
    `used_before` (seconds since 1970). False if `path` is gone or has no owner.
    """
    token = path.name.rpartition("@")[2].removesuffix(".tmp")
    if _host_and_pid(token)[0] == _host():
        return is_gone(token)
    try:
        return max(p.lstat().st_mtime for p in [path, *path.rglob("*")]) < used_before
    except FileNotFoundError:
        return False


def _host() -> str:
    """This machine; a container with its own process ids counts as another host."""
    return f"{os.uname().nodename}~{os.stat('/proc/self/ns/pid').st_ino}"


def _host_and_pid(token: str) -> tuple[str, str]:
    host, _, pid = token.rpartition("-")[0].rpartition("-")
    return host, pid
