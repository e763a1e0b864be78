"""Damaged images and odd folders: refused by name or converted as documented, nothing else changed."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.faults import Tally
from benchmarks.faults.damaged_images import KINDS, Pixels, documented, saved, whole
from benchmarks.faults.jobs import Job, import_everything
from benchmarks.faults.odd_folders import FOLDERS
from rela.stages.workspace.workspace import Workspace

_PER_KIND = 250
_BATCH = 13  # images of each kind in a folder
_LIMIT_SECONDS = 120.0
_QUALITY, _JPEG_LEVELS = 90, 3.0  # mean difference between two encoders' JPEGs of the same pixels


def images(trials: int, scratch: Path) -> Iterator[Tally]:
    """Images of every kind, `trials` of each, stored raw and as JPEGs; and every odd folder."""
    import_everything()
    place, count = scratch / "images", trials or _PER_KIND
    subprocess.run(["rm", "-rf", place], check=True)  # shutil's recursion is not deep enough
    random, batch = np.random.default_rng(0), min(_BATCH, -(-count // 2))
    tallies = {
        name: Tally(f"{name}: refused by name, or converted as documented") for name in KINDS
    }
    beside = Tally("whole images beside damaged ones: as documented")
    conversions = Tally("conversions ended in time, with lines and not a traceback")
    for number, start in enumerate(range(0, count, batch)):
        root = place / str(start) / "images"
        files, kind_of = dict[str, bytes](), dict[str, Tally]()
        for index in range(start, min(start + batch, count)):
            for name, kind in KINDS.items():
                for make, tally in ((kind, tallies[name]), (whole, beside)):
                    suffix, content = make(random)
                    path = f"{'ab'[index % 2]}/{name.replace(' ', '-')}{len(files)}{suffix}"
                    files[path], kind_of[path] = content, tally
        write(root, files)
        options = ("--workers", 2, "--val-fraction", 0, "--on-bad-image", "skip", "--write-mode")
        workspace, log = root.parent / "workspace", root.parent / "log"
        job = Job.rela(workspace, "convert", root, *options, ("raw", "jpg")[number % 2], log=log)
        good = job.wait(_LIMIT_SECONDS) == 0 and "Traceback" not in job.said()
        conversions.count("" if good else f"{root}: {_end_of(job)}")
        found = Converted(workspace) if good else None
        for path, content in files.items():
            problem = misfit(path, content, found) if found else "not converted"
            kind_of[path].count(problem and f"{path} of {start}: {problem}")
        shutil.rmtree(root.parent)
    yield from (*tallies.values(), beside, conversions)
    folders = Tally("odd folders: converted as documented, or refused in one line")
    for what, build in FOLDERS.items():
        root = place / what.replace(" ", "-") / "images"
        root.mkdir(parents=True)
        problem = _try_folder(root, build(root))
        folders.count(f"{what}: {problem}" if problem else "")
    subprocess.run(["rm", "-rf", place], check=True)
    yield folders


def write(root: Path, files: dict[str, bytes]) -> None:
    """The files of a source folder."""
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)


class Converted:
    """The data set of a workspace, by the names of its files."""

    def __init__(self, workspace: Path) -> None:
        dataset: Any = Workspace(workspace).dataset("images")
        self.bad = dict(dataset.content.bad_images)
        self.rows = {row["path"]: int(row["index"]) for row in dataset.index()}
        self._beton = dataset.open()

    def stored(self, path: str) -> tuple[bytes, bool, tuple[int, int]]:
        """Bytes, whether they are raw pixels, and (height, width)."""
        row, beton = self.rows[path], self._beton
        start = int(beton.pointers[row])
        content = beton.data[start : start + int(beton.sizes[row])].tobytes()
        return content, bool(beton.modes[row]), (int(beton.heights[row]), int(beton.widths[row]))


def misfit(path: str, content: bytes, found: Converted) -> str:
    """Why what became of a file is not what the documentation says; empty if it is."""
    expected = documented(content)
    if path not in found.rows:
        if path not in found.bad:
            return "neither stored nor named"
        return "" if expected is None else f"refused though Pillow reads it: {found.bad[path]}"
    if path in found.bad:
        return "stored and named as bad"
    if expected is None:
        return "stored though Pillow does not read it"
    stored, is_raw, size = found.stored(path)
    if size != expected.shape[:2]:
        return f"{size} instead of {expected.shape[:2]} pixels"
    if is_raw:
        pixels = np.frombuffer(stored, np.uint8).reshape(expected.shape)
        return "" if np.array_equal(pixels, expected) else "other pixels"
    return "" if stored == content else _of_jpeg(stored, expected)


def _of_jpeg(stored: bytes, expected: Pixels) -> str:
    again = documented(stored)
    if again is None or again.shape != expected.shape:
        return "a JPEG that does not decode"
    own = documented(saved(Image.fromarray(expected), ".jpg", quality=_QUALITY))
    assert own is not None
    levels = float(np.abs(again.astype(int) - own).mean())
    return "" if levels < _JPEG_LEVELS else f"a JPEG {levels:.0f} levels away"


def _try_folder(root: Path, expected: set[bytes] | None) -> str:
    """Convert an odd folder: to these files, or (None) to an error of one line."""
    workspace = root.parent / "workspace"
    words = [sys.executable, "-m", "rela", "--workspace", workspace, "convert", root]
    words += ["--on-bad-image", "skip", "--workers", 1, "--val-fraction", 0]
    if os.geteuid() == 0:  # without root's right to read everything
        words = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", *words]
    job = Job.program(*words, log=root.parent / "log")
    status = job.wait(_LIMIT_SECONDS)
    if "Traceback" in job.said() or status not in ((65, 74) if expected is None else (0,)):
        return _end_of(job)
    if expected is None:
        return ""
    found = {os.fsencode(path) for path in Converted(workspace).rows}
    return "" if found == expected else f"holds {sorted(found)}"


def _end_of(job: Job) -> str:
    return f"status {job.status}: {job.said().strip()[-300:]}"
