"""Shards behind a URL: listed by name or pattern, and fetched one at a time, through fsspec."""

import contextlib
import errno
import glob
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rela.errors import ChoiceError, DataError, UnavailableError, one_line, require
from rela.sources.file_patterns import fixed_part, ranges_filled
from rela.sources.splits.tree import is_system_name

KIND_OF_SUFFIX = {".tar": "webdataset", ".parquet": "huggingface"}
# what stores call the version of an object's content, and else the time of its last change
_VERSIONS = ("ETag", "etag", "md5Hash", "crc32c", "blob_id", "checksum")
_TIMES = ("LastModified", "last_modified", "mtime", "updated", "created")
_NAMED = 3
_NOT_OF_A_STORE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # the disk that a shard is copied to


@dataclass(frozen=True, slots=True)
class Shard:
    """One file of a store; `name` is relative to the folder that all shards are in.

    `version` tells its content from another one under the same name, as far as the store says: the ETag or
    digest that it lists, else the time of the last change.
    """

    name: str
    path: str
    num_bytes: int
    version: str


@dataclass(frozen=True)
class Shards:
    """The shards at `url`, by name; `kind` is that of `rela.sources.KINDS`."""

    url: str
    kind: str
    root: str
    shards: list[Shard]

    def fetch(self, shard: Shard, folder: Path) -> Path:
        """Copy one shard into `folder`; raises UnavailableError if that fails."""
        fs, _ = _store(self.url)
        file = folder / Path(shard.name).name
        with _named_failure(self.url_of(shard)):
            fs.get_file(shard.path, str(file))
        if (found := file.stat().st_size) != shard.num_bytes:
            raise UnavailableError(
                f"{one_line(self.url_of(shard))} has changed since it was listed: found {found:,} bytes, "
                f"expected {shard.num_bytes:,}; run the same command again"
            )
        return file

    def url_of(self, shard: Shard) -> str:
        """The URL of one of the shards."""
        return f"{self.root}/{shard.name}"


def list_shards(url: str, kind: str = "auto") -> Shards:
    """The .tar or .parquet files at a URL: one, those below a folder, or those of a pattern.

    Patterns are those of files: `*`, `?`, `[…]`, `**` and `{000..146}`. Raises DataError if there are none,
    or if files of a range are missing, UnavailableError if the store cannot be read, ChoiceError if a
    package for it is not installed.
    """
    fs, path = _store(url)
    with _named_failure(url):
        if glob.has_magic(path.replace("{", "*")):
            root, found = str(fixed_part(Path(path))), _matching(fs, path)
        elif fs.isdir(path):
            root, found = path, fs.find(path, detail=True)
        else:
            root, found = str(Path(path).parent), {path: fs.info(path)}
    infos = {
        Path(path).relative_to(root): (path, info)
        for path, info in found.items()
        if info.get("type", "file") == "file"
    }
    infos = {name: at for name, at in infos.items() if not any(map(is_system_name, name.parts))}
    kinds = {kind_of(name) for name in infos} - {""} if kind == "auto" else {kind}
    if not kinds <= set(KIND_OF_SUFFIX.values()):
        raise ChoiceError(
            f"--format {kind}: only {' and '.join(KIND_OF_SUFFIX.values())} are read from a URL; copy "
            f"{one_line(url)} here, then convert the copy"
        )
    if kind == "auto" and len(kinds) == 1:
        infos = {name: at for name, at in infos.items() if kind_of(name) in kinds}
    if not infos or len(kinds) != 1:
        there = f"{len(infos):,} files, both .tar and .parquet" if len(kinds) > 1 else "none"
        raise DataError(
            f"{one_line(url)}: expected .tar or .parquet files, found {there}; give one kind by a "
            "pattern such as s3://BUCKET/train-*.tar"
        )
    shards = [
        Shard(str(name), path, int(info["size"] or 0), _version(info))
        for name, (path, info) in sorted(infos.items())
    ]
    return Shards(url, kinds.pop(), fs.unstrip_protocol(root), shards)


def kind_of(name: Path) -> str:
    """Of a file, by its suffix; empty if it is no shard."""
    return KIND_OF_SUFFIX.get(name.suffix.lower(), "")


def _store(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it."""
    fsspec = require("fsspec", "cloud", f"reading {one_line(url)}")
    try:
        fs, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise ChoiceError(
            f"{one_line(url)}: {one_line(str(error))}; `pip install 'rela[cloud]'` installs what "
            "s3://, gs:// and hf:// need"
        ) from error
    except ValueError as error:
        raise ChoiceError(
            f"{one_line(url)}: {one_line(str(error))}; expected a URL such as s3://BUCKET/train-*.tar"
        ) from error
    return fs, str(path).rstrip("/")


def _matching(fs: Any, path: str) -> Mapping[str, Any]:
    """The files of a pattern by one listing; raises DataError naming the files of a range without one."""
    names = list(ranges_filled(path)) if "{" in path else [path]
    if any(map(glob.has_magic, names)):
        return {found: info for name in names for found, info in fs.glob(name, detail=True).items()}
    listed = fs.glob(_with_stars(path), detail=True)
    if missing := [name for name in names if name not in listed]:
        more = f" and {len(missing) - _NAMED:,} more" if len(missing) > _NAMED else ""
        raise DataError(
            f"{len(missing):,} of {len(names):,} shards are missing: "
            f"{one_line(', '.join(missing[:_NAMED]))}{more}; change the range"
        )
    return {name: listed[name] for name in names}


def _with_stars(path: str) -> str:
    """`train-{000..146}.tar` → `train-*.tar`."""
    before, brace, rest = path.partition("{")
    return f"{before}*{_with_stars(rest.partition('}')[2])}" if brace else path


def _version(info: Mapping[str, Any]) -> str:
    for name in (*_VERSIONS, *_TIMES):
        if info.get(name):
            return f"{name} {info[name]}"
    return ""


@contextlib.contextmanager
def _named_failure(url: str) -> Iterator[None]:
    """Turn what a store raises into UnavailableError with the URL; stores raise many types."""
    try:
        yield
    except FileNotFoundError as error:
        raise UnavailableError(f"{one_line(url)}: found nothing there; check the name") from error
    except (DataError, ChoiceError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _NOT_OF_A_STORE:
            raise
        what = one_line((str(error).splitlines() or [""])[0] or type(error).__name__)
        raise UnavailableError(
            f"cannot read {one_line(url)}: {what}; check the name and your credentials, then run the same "
            "command again"
        ) from error
