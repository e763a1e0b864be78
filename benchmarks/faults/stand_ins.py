"""What may stand in the place of a file: pipes, folders, devices, links. Nobody waits for these for ever."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from benchmarks.faults.readings import Case, try_all
from benchmarks.faults.tally import Tally

STAND_INS: dict[str, Callable[[Path], None]] = {
    "a pipe": os.mkfifo,
    "a folder": Path.mkdir,
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to nothing": lambda path: path.symlink_to("nothing"),
}
_FAIR_BYTES = 1 << 26  # of memory, for a command that trains
_LETTER = b"Dear Sir or Madam"


def in_workspaces(
    place: Path, workspace: Path, read: Callable[[Path], None], trials: int
) -> Iterator[Tally]:
    """In the place of `trials` files of a workspace, chosen by chance; `read` runs what reads them."""
    tally = Tally(
        "pipes, folders, devices, links for a workspace's files: an error of one line, or it goes on"
    )
    random, copy = np.random.default_rng(0), place / "copy"
    files = sorted(p.relative_to(workspace) for p in workspace.rglob("*") if p.is_file())
    pairs = [(file, name) for file in files for name in STAND_INS]
    chosen = random.permutation(len(pairs))[:trials]

    def case(file: Path, name: str) -> Case:
        def replace_and_read() -> None:
            _copy(workspace, copy)
            _put(copy / file, STAND_INS[name])
            read(copy)

        return Case(f"{name} at {file}", replace_and_read, _FAIR_BYTES)

    _copy(workspace, copy)
    read(copy)
    try_all(tally, [case(*pairs[number]) for number in chosen], place / "log")
    yield tally
    yield _links(place, workspace, read, files)
    shutil.rmtree(copy)


def where_named(place: Path, reads: dict[str, tuple[str, Callable[[Path], str | None]]]) -> Tally:
    """In the place of files that a user names: `reads` by what they are, with suffix and reader."""
    tally = Tally("pipes, folders, devices, links where a file is named: an error of one line")
    folder = place / "named"
    folder.mkdir()

    def case(number: int, what: str, name: str) -> Case:
        suffix, read = reads[what]
        path = folder / f"{number}{suffix}"

        def put_and_read() -> str | None:
            _put(path, STAND_INS[name])
            return read(path) or "it was accepted"

        return Case(f"{name} for {what}", put_and_read, _FAIR_BYTES)

    pairs = [(what, name) for what in reads for name in STAND_INS]
    try_all(tally, [case(i, *pair) for i, pair in enumerate(pairs)], place / "log")
    shutil.rmtree(folder)
    return tally


def _links(place: Path, workspace: Path, read: Callable[[Path], None], files: list[Path]) -> Tally:
    """All files of one name at once, one name after the other."""
    tally = Tally("a workspace's files link to somebody's letter: it stays as it was")
    letter, copy = place / "letter", place / "copy"

    def case(name: str) -> Case:
        def link_and_read() -> str | None:
            _copy(workspace, copy)
            letter.write_bytes(_LETTER)
            for file in files:
                if file.name == name:
                    _put(copy / file, lambda path: path.symlink_to(letter))
            try:
                read(copy)
            finally:
                changed = letter.read_bytes() != _LETTER
            return "the letter was changed" if changed else None

        return Case(name, link_and_read, _FAIR_BYTES)

    try_all(tally, [case(name) for name in sorted({f.name for f in files})], place / "log")
    return tally


def _copy(workspace: Path, copy: Path) -> None:
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(workspace, copy)


def _put(path: Path, make: Callable[[Path], None]) -> None:
    path.unlink(missing_ok=True)
    make(path)
