"""WebDataset shards, written with `tarfile`."""

import io
import tarfile
from functools import partial
from pathlib import Path

import pictures

Members = list[tuple[str, bytes]]
png = partial(pictures.png, height=12, width=10)


def shard(path: Path, members: Members, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as tar:  # type: ignore[call-overload]
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def labelled(first: int, labels: list[str], suffix: str = "cls") -> Members:
    """One image and one label for each key; the picture's seed is the key."""
    members = []
    for number, label in enumerate(labels, first):
        members += [(f"{number:04}.png", png(number)), (f"{number:04}.{suffix}", label.encode())]
    return members
