"""Whose work in progress a name stands for, and whether its owner still lives.

Directories and files that are not finished yet carry the host and the process that make them at the end of
their name, behind an `@`. So the next job can tell what was abandoned from what is under way.
"""

import os
import platform
import re
import secrets
from pathlib import Path

_DIGITS = re.compile("[0-9]{1,100}")


def owner_token() -> str:
    """HOST-PID-RANDOM: this process, and a name that no other call gets."""
    return f"{_host()}-{os.getpid()}-{secrets.token_hex(4)}"


def is_gone(token: str) -> bool:
    """Whether the owner was a process of this host that has ended; of others nothing is known."""
    host, pid = _host_and_pid(token)
    if host != _host() or not _DIGITS.fullmatch(pid):
        return False
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):  # no process ever had a number that large
        return True
    except OSError:  # it lives, and is somebody else's
        return False
    return False


def describe(token: str) -> str:
    """ "process 1234 on node7", for people."""
    host, pid = _host_and_pid(token)
    return printable(f"process {pid} on {host.rpartition('~')[0] or host}")


def printable(text: str) -> str:
    """Files may be anybody's: what breaks lines or steers terminals does not get there."""
    return "".join(character if character.isprintable() else "?" for character in text)


def is_abandoned(path: Path, used_before: float = 0.0) -> bool:
    """Whether the owner that the name of `path` ends with works on it no more.

    A process of this host is looked for; of other hosts, what was changed before `used_before` (seconds
    since 1970) counts as abandoned. False for what is gone, or carries no owner.
    """
    token = path.name.rpartition("@")[2].removesuffix(".tmp")
    if _host_and_pid(token)[0] == _host():
        return is_gone(token)
    try:
        return max(p.lstat().st_mtime for p in [path, *path.rglob("*")]) < used_before
    except FileNotFoundError:
        return False


def _host() -> str:
    """This machine; containers on it that have process numbers of their own are others."""
    return f"{platform.node()}~{os.stat('/proc/self/ns/pid').st_ino}"


def _host_and_pid(token: str) -> tuple[str, str]:
    host, _, pid = token.rpartition("-")[0].rpartition("-")
    return host, pid
