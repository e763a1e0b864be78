"""The picture of what was found: where it is written, and that no other file is replaced."""

from collections.abc import Sequence
from pathlib import Path

from rela.data.beton.contact_sheet import MAX_IMAGES, Row, sheet_of
from rela.data.beton.reader import Beton
from rela.errors import ChoiceError
from rela.pipeline.files import regular_file
from rela.stages.output import require_folder, written

_MARK = "rela neighbors"  # in the file: a picture that may be replaced
_MOST_ROWS = 64


def picture_path(given: str | Path | None, dataset: str, what: str) -> Path:
    """The file to write; raises ChoiceError for a file that is no picture of `rela neighbors`.

    Raises as `require_folder`, too.
    """
    path = Path(given or f"{dataset}-{what}.png")
    if path.is_dir():
        path = path / f"{dataset}-{what}.png"
    if path.suffix != ".png":
        raise ChoiceError(f"--output {path}: expected a name ending in .png")
    if path.exists() and not _is_ours(path):
        raise ChoiceError(
            f"{path} exists and is no picture of `rela neighbors`; choose another --output"
        )
    require_folder(path)
    return path


def write_picture(path: Path, rows: Sequence[Row]) -> None:
    """Write at most 64 rows as a PNG, whole or not at all."""
    from PIL.PngImagePlugin import PngInfo

    mark = PngInfo()
    mark.add_text("Software", _MARK)
    with written(path) as temporary:
        picture = sheet_of(rows[:_MOST_ROWS], titled=any(row.title for row in rows), captioned=True)
        picture.save(temporary, "PNG", pnginfo=mark)


def rows_of(images: Sequence[tuple[Beton, int, str]]) -> list[Row]:
    """Rows without titles, full ones first."""
    return [
        Row("", images[start : start + MAX_IMAGES]) for start in range(0, len(images), MAX_IMAGES)
    ]


def _is_ours(path: Path) -> bool:
    try:
        with open(path, "rb", opener=regular_file) as file:
            return _MARK.encode() in file.read(200)
    except OSError:
        return False
