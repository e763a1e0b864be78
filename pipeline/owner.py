"""Whose work in progress a name stands for, and whether its owner still lives.

Directories and files that are not finished yet carry the host and the process that make them at the end of
their name, behind an `@`. So the next job can tell what was abandoned from what is under way.
"""

import os
import platform
import secrets
from pathlib import Path


def owner_token() -> str:
    """HOST-PID-RANDOM: this process, and a name that no other call gets."""
    return f"{platform.node()}-{os.getpid()}-{secrets.token_hex(4)}"


def is_abandoned(path: Path, used_before: float = 0.0) -> bool:
    """Whether the owner that the name of `path` ends with works on it no more.

    A process of this host is looked for; of other hosts, what was changed before `used_before` (seconds
    since 1970) counts as abandoned. False for what is gone, or carries no owner.
    """
    token = path.name.rpartition("@")[2].removesuffix(".tmp")
    return is_over(token, path, used_before)


def is_over(token: str, path: Path, used_before: float) -> bool:
    """The same where the owner's token stands elsewhere than in the name of `path`."""
    host, _, rest = token.rpartition("-")[0].rpartition("-")
    if host == platform.node() and rest.isdigit():
        return not Path(f"/proc/{rest}").exists()
    try:
        return path.stat().st_mtime < used_before
    except FileNotFoundError:
        return False
