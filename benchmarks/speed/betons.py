"""Betons to measure with, written once into the scratch folder."""

import os
from pathlib import Path

from rela.data.beton.encoding import Encoding
from rela.data.beton.reader import Beton, open_beton
from rela.data.beton.writer import write_beton
from rela.sources.image_folder import scan


def beton_of(folder: Path, write_mode: str = "auto") -> Beton:
    """The images of a class folder in a beton beside it; what is there already stays."""
    path = folder.with_name(f"{folder.name}-{write_mode}.beton")
    if not path.is_file():
        unfinished = path.with_suffix(".tmp")
        unfinished.unlink(missing_ok=True)
        found = scan(folder)
        cores = len(os.sched_getaffinity(0))
        write_beton(unfinished, found.root, found.splits["train"], Encoding(write_mode), cores)
        os.replace(unfinished, path)
    return open_beton(path)
