"""Odd folders: each is built in an empty one, and says which images a conversion has to find in it.

None stands for an error of one line.
"""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.faults.damaged_images import photo, saved

_DEPTH = 1500  # more than Python's recursion
_ODD_NAMES = (b"\xff\xfe", b"line\nbreak", b"carriage\rreturn", b'quote",comma', b"\x1b[2J")
_TWINS = (b"1.png", b"1.PNG", b"1.Png", b"1.jpg", "é.png".encode(), "e\u0301.png".encode())


def _images(root: Path, *names: bytes) -> set[bytes]:
    content = saved(photo(np.random.default_rng(0)), ".png")
    for name in names:
        path = os.fsencode(root) + b"/" + name
        os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120 (names are bytes)
        Path(os.fsdecode(path)).write_bytes(content)
    return set(names)


def _loops(root: Path) -> set[bytes]:
    _images(root, b"a/1.png", b"b/1.png")
    for name in ("a/self", "a/2.png"):
        (root / name).symlink_to(Path(name).name)
    (root / "a" / "up").symlink_to("..")
    (root / "a" / "round").symlink_to(root / "b")
    (root / "b" / "round").symlink_to(root / "a")
    return {b"a/1.png", b"a/round/1.png", b"b/1.png", b"b/round/1.png"}


def _special(root: Path) -> set[bytes]:
    """A pipe into which nothing is written, a device without an end, an error, a terabyte of nothing."""
    os.mkfifo(root / "pipe.png")
    (root / "zero.png").symlink_to("/dev/zero")
    (root / "error.png").symlink_to("/proc/self/mem")
    with open(root / "huge.png", "wb") as file:
        file.truncate(1 << 40)
    return _images(root, b"1.png")


def _unreadable_file(root: Path) -> set[bytes]:
    _images(root, b"a/2.png")
    (root / "a" / "2.png").chmod(0)
    return _images(root, b"a/1.png")


def _unreadable_folder(root: Path) -> None:
    _images(root, b"a/1.png", b"b/1.png")
    (root / "b").chmod(0)


def _empty_classes(root: Path) -> set[bytes]:
    (root / "b").mkdir()
    (root / "c" / "d").mkdir(parents=True)
    return _images(root, b"a/1.png")


def _deep(root: Path) -> set[bytes]:
    deepest = root / "a"
    deepest.mkdir()
    for _ in range(_DEPTH):
        deepest = deepest / "d"
        os.mkdir(deepest)  # noqa: PTH102 (pathlib goes by recursion, too)
    return _images(root, b"a/1.png", b"a/" + b"d/" * _DEPTH + b"2.png")


def _deeper_than_paths(root: Path) -> None:
    _images(root, b"a/1.png")
    here, name = os.open(root / "a", os.O_RDONLY), "d" * 200
    for _ in range(30):
        os.mkdir(name, dir_fd=here)
        deeper = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
    os.close(here)


FOLDERS: dict[str, Callable[[Path], set[bytes] | None]] = {
    "links that loop": _loops,
    "pipes, devices and a terabyte of nothing": _special,
    "an unreadable file": _unreadable_file,
    "an unreadable folder": _unreadable_folder,
    "images with odd names": lambda root: _images(root, *(b"a/%b.png" % n for n in _ODD_NAMES)),
    "classes with odd names": lambda root: _images(root, *(b"%b/1.png" % n for n in _ODD_NAMES)),
    "names that are nearly the same": lambda root: _images(root, *(b"a/" + n for n in _TWINS)),
    "empty classes": _empty_classes,
    "nothing but an empty class": lambda root: (root / "a").mkdir(),
    "an empty folder": lambda root: None,
    "1500 folders within each other": _deep,
    "folders deeper than paths can be": _deeper_than_paths,
}
