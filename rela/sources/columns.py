"""Which columns of an Arrow or Parquet table are images and labels, by their types.

`datasets` writes down what a column is: `Image` and `ClassLabel`. In the tables of others the image is
the only column of bytes, and the label the one called `label`.
"""

import json
from dataclasses import dataclass
from typing import Any

from rela.errors import ChoiceError, DataError
from rela.sources.source import SourceOptions

_LABEL_NAME = "label"


@dataclass(frozen=True)
class Columns:
    """Names of the columns; `class_names` is what the numbers in `label` stand for, if that is known.

    With `image_field` an image is a struct, of which this field holds the bytes of its file.
    """

    image: str
    image_field: str | None
    label: str | None
    class_names: list[str] | None


def require_pyarrow() -> Any:
    """The package; raises ChoiceError with the command that installs it."""
    try:
        import pyarrow
    except ImportError as error:
        raise ChoiceError(
            "Parquet files and data sets of Hugging Face need pyarrow; install it with "
            "`pip install 'rela[hf]'`"
        ) from error
    return pyarrow


def find_columns(schema: Any, where: str, options: SourceOptions) -> Columns:
    """By `options`, or by the types in a table's schema.

    Raises ChoiceError with what there is where several columns could be meant, or none.
    """
    features = _features(schema)
    images = [name for name in schema.names if _feature(features, name) == "Image"] or [
        field.name for field in schema if _holds_bytes(field.type)
    ]
    image = _chosen(options.image_column, images, schema, where, "image")
    if image is None:
        raise ChoiceError(f"{where} has no column of images, only {', '.join(schema.names)}")
    if not _holds_bytes(schema.field(image).type):
        raise ChoiceError(f"{where}: the column {image!r} holds no bytes of image files")
    labels = [name for name in schema.names if _feature(features, name) == "ClassLabel"] or [
        name for name in schema.names if name == _LABEL_NAME
    ]
    label = _chosen(options.label_column, labels, schema, where, "label")
    if label is not None and not _holds_labels(schema.field(label).type):
        raise ChoiceError(
            f"{where}: the column {label!r} holds {schema.field(label).type}, and labels are whole "
            "numbers or text; choose another --label-column"
        )
    names = _class_names(features, label, where)
    is_struct = require_pyarrow().types.is_struct(schema.field(image).type)
    return Columns(image, "bytes" if is_struct else None, label, names)


def _chosen(asked: str | None, found: list[str], schema: Any, where: str, what: str) -> str | None:
    """The column asked for, or the only one found."""
    if asked is not None:
        if schema.names.count(asked) != 1:
            raise ChoiceError(f"{where} has no column {asked!r}, only {', '.join(schema.names)}")
        return asked
    if len(found) > 1:
        raise ChoiceError(
            f"{where} has the {what} columns {', '.join(found)}; choose one with --{what}-column"
        )
    return found[0] if found else None


def _features(schema: Any) -> dict[str, Any]:
    """What `datasets` wrote about the columns; nothing where somebody else wrote the table."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}


def _feature(features: dict[str, Any], column: str) -> str:
    found = features.get(column)
    return str(found.get("_type", "")) if isinstance(found, dict) else ""


def _class_names(features: dict[str, Any], label: str | None, where: str) -> list[str] | None:
    if label is None or _feature(features, label) != "ClassLabel":
        return None
    names = features[label].get("names")
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise DataError(f"{where}: the class names of {label!r} are no list of texts")
    return names


def _holds_bytes(kind: Any) -> bool:
    types = require_pyarrow().types
    if types.is_struct(kind):
        index = kind.get_field_index("bytes")
        if index < 0:
            return False
        kind = kind.field(index).type
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _holds_labels(kind: Any) -> bool:
    types = require_pyarrow().types
    return bool(types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind))
