"""Files that are no images by their names: what they are, and how images are made of them."""

import contextlib
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath

from rela.errors import RelaError, one_line
from rela.sources.splits.tree import Folder

_SHOWN_KINDS = 6
_DOUBLED = (".nii.gz", ".tar.zst", ".tar.gz")
_PICTURES = (
    ".jxl", ".svg", ".raw", ".cr2", ".cr3", ".nef", ".arw", ".dng", ".rw2", ".orf", ".npy", ".npz", ".dcm",
    ".nii", ".nii.gz", ".mat", ".h5", ".hdf5", ".exr", ".svs", ".ndpi", ".czi",
)  # fmt: skip
_VIDEOS = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv")
_UNPACKED_BY = {".rar": "unrar x", ".7z": "7z x", ".zst": "zstd -d", ".tzst": "tar --zstd -xf"}
_USUAL_SUFFIX = re.compile(r"\.[a-z0-9]{1,4}|\.crdownload|\.part(ial)?|\.download")  # .txt, .json
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a")
_WEBP = (b"RIFF", b"WEBP")
_LOOKED_AT = 500  # files


def kind_of(path: str) -> str:
    """Its suffix in lower case, or words for none."""
    name = PurePosixPath(path).name.lower()
    doubled = next((suffix for suffix in _DOUBLED if name.endswith(suffix)), "")
    suffix = doubled or PurePosixPath(name).suffix
    return {"": "no suffix", ".*": "keys without an image"}.get(suffix, suffix)


def counted(counts: Mapping[str, int]) -> str:
    """`12 .txt, 3 .xml and 2 more`."""
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    words = ", ".join(f"{count:,} {one_line(name)}" for name, count in ordered[:_SHOWN_KINDS])
    more = sum(count for _, count in ordered[_SHOWN_KINDS:])
    return f"{words} and {more:,} more" if more else words


def unpacking(path: str) -> str:
    """The program and options that unpack an archive that rela does not read, or ""."""
    return _UNPACKED_BY.get(PurePosixPath(path.lower()).suffix, "")


def pictures_in_words(paths: Sequence[str]) -> list[str]:
    """A line on pictures and arrays that rela does not read, or none."""
    found = Counter(kind for kind in map(kind_of, paths) if kind in _PICTURES)
    if not found:
        return []
    return [f"{counted(found)}: rela does not read them; save them as PNG or JPEG first"]


def remedies(paths: Sequence[str]) -> list[str]:
    """How images are made of files where there are no images, a line for each kind."""
    lines = pictures_in_words(paths)
    if any(kind_of(path) in _VIDEOS for path in paths):
        lines.append("frames of a video: `ffmpeg -i VIDEO -vf fps=1 FOLDER/%05d.png`")
    if archive := next(filter(unpacking, paths), None):
        lines.append(f"unpack {one_line(archive)} with `{unpacking(archive)}`")
    return lines


def images_by_content(root: Folder, paths: Iterable[str]) -> list[str]:
    """Those of the first files without a usual suffix that begin as JPEG, PNG, GIF or WebP."""
    odd = (path for path in paths if not _USUAL_SUFFIX.fullmatch(kind_of(path)))
    found = []
    for path in itertools.islice(odd, _LOOKED_AT):
        with contextlib.suppress(RelaError), root.tree.open(path) as file:
            start = file.read(12)
            if start.startswith(_SIGNATURES) or (start[:4], start[8:]) == _WEBP:
                found.append(path)
    return found
