"""Damaged images and odd folders: refused by name or converted as documented, nothing else changed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.faults.damaged_images import KINDS, Pixels, documented, saved, whole
from benchmarks.faults.jobs import Job, import_everything
from benchmarks.faults.odd_folders import FOLDERS
from benchmarks.faults.tally import Tally
from rela.stages.workspace.workspace import Workspace

_PER_KIND = 250
_BATCH = 13  # images of each kind in a folder
_LIMIT_SECONDS = 120.0
_QUALITY, _JPEG_LEVELS = 90, 3.0  # mean difference between two encoders' JPEGs of the same pixels


def run(trials: int, scratch: Path) -> list[Tally]:
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
        root, files = place / str(start) / "images", dict[str, bytes]()
        kind_of = dict[str, Tally]()
        for index in range(start, min(start + batch, count)):
            for name, kind in KINDS.items():
                for make, tally in ((kind, tallies[name]), (whole, beside)):
                    suffix, content = make(random)
                    path = f"{'ab'[index % 2]}/{name.replace(' ', '-')}{len(files)}{suffix}"
                    files[path], kind_of[path] = content, tally
        write(root, files)
        found, problem = convert(root, ("raw", "jpg")[number % 2])
        conversions.count(problem)
        for path, content in files.items():
            problem = misfit(path, content, found) if found is not None else "not converted"
            kind_of[path].count(problem and f"{path} of {start}: {problem}")
        shutil.rmtree(root.parent)
    folders = Tally("odd folders: converted as documented, or refused in one line")
    for number, (what, build) in enumerate(FOLDERS.items()):
        root = place / f"folder-{number}" / "images"
        root.mkdir(parents=True)
        problem = _try_folder(root, build(root))
        folders.count(f"{what}: {problem}" if problem else "")
    subprocess.run(["rm", "-rf", place], check=True)
    return [*tallies.values(), beside, conversions, folders]


def write(root: Path, files: dict[str, bytes]) -> None:
    """The files of a source folder."""
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)


def convert(root: Path, mode: str) -> tuple[Any, str]:
    """What became of a folder, None if it was not converted; and what went wrong, if anything did."""
    workspace, log = root.parent / "workspace", root.parent / "log"
    options = ("--workers", 2, "--on-bad-image", "skip", "--write-mode", mode)
    status = Job.rela(workspace, "convert", root, *options, log=log).wait(_LIMIT_SECONDS)
    said = log.read_text(errors="replace")
    if status != 0 or "Traceback" in said:
        return None, f"{root}: status {status}: {said.strip()[-300:]}"
    return Converted(Workspace(workspace).dataset("images")), ""


class Converted:
    """A data set, by the names of its files."""

    def __init__(self, dataset: Any) -> None:
        self.bad = dict(dataset.bad_images)
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
    workspace, log = root.parent / "workspace", root.parent / "log"
    job = Job.start(lambda: _without_privilege(workspace, root), log)
    status, said = job.wait(_LIMIT_SECONDS), log.read_text(errors="replace")
    if "Traceback" in said:
        return said.strip()[-300:]
    if expected is None:
        return "" if status in (65, 74) else f"status {status}: {said.strip()[-300:]}"
    if status != 0:
        return f"status {status}: {said.strip()[-300:]}"
    found = {os.fsencode(path) for path in Converted(Workspace(workspace).dataset("images")).rows}
    return "" if found == expected else f"holds {sorted(found)}"


def _without_privilege(workspace: Path, root: Path) -> None:
    """Convert without root's right to read everything."""
    words = [sys.executable, "-m", "rela", "--workspace", str(workspace), "convert", str(root)]
    words += ["--on-bad-image", "skip", "--workers", "1"]
    if os.geteuid() == 0:
        words = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", *words]
    os.execvp(words[0], words)
