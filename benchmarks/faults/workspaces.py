"""Small real images, and what a workspace holds, to compare an interrupted job with an uninterrupted one."""

import hashlib
import io
import json
import re
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rela.pipeline.artifact import open_artifact
from rela.stages.workspace.workspace import Workspace

_TIMES = ("provenance", "seconds", "file_sha256", "manifest_sha256")
_TELLING_TIMES = ("seconds.json", "cost.json", "progress.json", ".lock")  # whole files that do


def write_digits(folder: Path, count: int = 1500, side: int = 16) -> Path:
    """scikit-learn's handwritten digits as PNGs and JPEGs in class folders; made once."""
    from sklearn.datasets import load_digits

    if folder.is_dir():
        return folder
    unfinished = folder.with_suffix(".unfinished")
    digits = load_digits()
    for index in range(count):
        digit = index % len(digits.images)
        place = unfinished / str(digits.target[digit])
        place.mkdir(parents=True, exist_ok=True)
        pixels = (digits.images[digit] * 255 / 16).astype(np.uint8)
        image = (
            Image.fromarray(pixels).convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
        )
        image.save(place / f"{index:04}.{'png' if index % 2 else 'jpg'}")
    unfinished.rename(folder)
    return folder


def write_shards(folder: Path, images: Path, count: int = 5) -> Path:
    """The same images in tar files, with a text that names their class; made once."""
    if folder.is_dir():
        return folder
    unfinished = folder.with_suffix(".unfinished")
    unfinished.mkdir(parents=True, exist_ok=True)
    paths = sorted(images.rglob("*.*"))
    for shard in range(count):
        with tarfile.open(unfinished / f"{shard}.tar", "w") as tar:
            for path in paths[shard::count]:
                tar.add(path, path.name)
                label = path.parent.name.encode()
                member = tarfile.TarInfo(f"{path.stem}.cls")
                member.size = len(label)
                tar.addfile(member, io.BytesIO(label))
    unfinished.rename(folder)
    return folder


def content_of(root: Path) -> dict[str, str]:
    """Digest of every file under `root`, or of the file `root`, by name; of JSON without the times in it.

    Names of work in progress are kept as they are, so leftovers show. Of files that tell times only
    the name counts. Records of priors are left out: who may not write goes on without them.
    """
    found = {}
    for path in sorted(p for p in (root, *root.rglob("*")) if p.is_file()):
        name = str(path.relative_to(root))
        if "events.out" in name or re.fullmatch(r"priors/\w+\.json", name):
            continue  # TensorBoard's, one for every attempt; records
        if path.parent.name == "checkpoints":
            name = re.sub(r"\d{8}", "STEP", name)  # some are saved when their time has come
            found[name] = ""
        elif path.name in _TELLING_TIMES:
            found[name] = ""
        elif path.suffix in (".json", ".jsonl"):
            lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
            texts = [json.dumps(timeless(json.loads(line)), sort_keys=True) for line in lines]
            found[name] = _sha256("\n".join(texts).encode())
        else:
            found[name] = _sha256(path.read_bytes())
    return found


def difference(found: dict[str, str], expected: dict[str, str]) -> str:
    """What differs between two contents, in words; empty if nothing does."""
    names = sorted(set(found) ^ set(expected))
    changed = sorted(n for n in set(found) & set(expected) if found[n] != expected[n])
    words = [f"only in one: {', '.join(names)}"] if names else []
    words += [f"other bytes: {', '.join(changed)}"] if changed else []
    return "; ".join(words)


def unsound_artifacts(workspace: Path) -> str:
    """What passes for complete and is not, in words; empty if there is nothing of the kind."""
    space = Workspace(workspace)
    parents = (
        space.datasets_dir, space.representations_dir, space.targets_dir, space.runs_dir,
        workspace / "out",
    )  # fmt: skip
    for parent in parents:
        for path in parent.iterdir() if parent.is_dir() else ():
            try:
                artifact = open_artifact(path)
                if artifact is not None:
                    artifact.verify()
            except Exception as error:
                return f"{path.name} looks complete and is not: {error}"
    return ""


def timeless(value: Any) -> Any:
    """Without entries that tell when, where and how long."""
    if isinstance(value, dict):
        return {
            key: timeless(inner)
            for key, inner in value.items()
            if key not in _TIMES and not key.endswith(("_seconds", "_per_second", "wait_share"))
        }
    return [timeless(inner) for inner in value] if isinstance(value, list) else value


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
