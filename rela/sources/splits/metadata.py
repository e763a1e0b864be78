"""`metadata.csv` and `metadata.jsonl` beside images, as Hugging Face's ImageFolder writes them.

https://huggingface.co/docs/datasets/image_dataset. Column `file_name` is a path relative to the file.
"""

import posixpath

from rela.errors import UnsafeError, one_line
from rela.sources.csv_table import table_rows
from rela.sources.labels import Label
from rela.sources.source import SourceOptions
from rela.sources.splits.tree import Folder

METADATA_NAMES = ("metadata.csv", "metadata.jsonl")


def labels_in_metadata(
    folder: Folder, where: str, options: SourceOptions
) -> tuple[str, dict[str, Label], list[str]] | None:
    """(path of the metadata in `folder`, label by path within the source, its columns); None without.

    The labels are empty where the table has no column of labels.
    """
    name = next((name for name in folder.files if name.lower() in METADATA_NAMES), None)
    if name is None:
        return None
    path = folder.within(name)
    shown = f"{where}/{one_line(path)}"
    labels: dict[str, Label] = {}
    with folder.open_text(name) as file:
        columns, rows = table_rows(file, name, shown, options)
        for line, image, label, _ in rows:
            inside = posixpath.normpath(folder.within(image.replace("\\", "/")))
            if inside.startswith(("../", "/")) or "\0" in inside:
                raise UnsafeError(f"{shown}, line {line}: {one_line(image)} is outside {where}")
            if label:
                labels[inside] = label
    return path, labels, columns
