"""Representations of a data set by a prior, the targets made from them, and unfinished parts."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from msgspec import Struct, to_builtins

from rela.pipeline.artifact import Artifact
from rela.pipeline.files import write_atomic
from rela.pipeline.owner import printable
from rela.pipeline.parts import PartStore
from rela.priors import PriorIdentity
from rela.priors.prior import Combination, identity_from_dict
from rela.result import Result
from rela.stages.workspace.schema import Float, Int, Timing, checked_manifest, read_json

if TYPE_CHECKING:
    from rela.representations.matrix_file import Matrix

REPRESENTATIONS_FILE = "representations.h5"


class Component(Struct, frozen=True):
    """One prior of a combination; `num_dropped`: constant columns that were left out."""

    prior: str
    run: str | None
    num_dropped: Int


class ShardRows(Struct, frozen=True):
    """One shard: its name in the store, its file of features, and how many rows that has."""

    name: str
    file: str
    num_rows: Int


class RepresentationsContent(Struct, frozen=True):
    """What representations are.

    - `shape`: rows (one per image or crop) and features per row; `crops`: random ones per image, 0 for one
      centre crop;
    - `run`: name of the run that was the prior, if it was one; `dataset`: its name at the time;
    - `components`: the priors of a combination; empty for a single prior;
    - `shards`: what the images were read from, if there is a file for each; empty for one file;
    - `map`: height, width and components of maps; empty for vectors.
    """

    shape: tuple[Int, Int]
    crops: Int
    prior: dict[str, Any]
    run: str | None
    dataset: str
    split: str
    components: tuple[Component, ...] = ()
    shards: tuple[ShardRows, ...] = ()
    map: tuple[Int, ...] = ()

    def __post_init__(self) -> None:
        try:
            identity_from_dict(self.prior)
        except (KeyError, AttributeError) as error:
            raise ValueError(f"expected the identity of a prior ({error})") from error


class _Parameters(Struct, frozen=True):
    dtype: str
    precision: str = "auto"


class _Images(Struct, frozen=True):
    images: str


class _Provenance(Timing, frozen=True):
    command: tuple[str, ...] = ()
    arithmetic: dict[str, Any] | None = None
    components_seconds: tuple[Float, ...] = ()
    components_cpu_seconds: tuple[Float | None, ...] = ()


class _Manifest(Struct, frozen=True):
    content: RepresentationsContent
    parameters: _Parameters
    inputs: _Images
    provenance: _Provenance


@dataclass(frozen=True, repr=False)
class Representations(Result, Artifact):
    """Features of every image of a split by one prior, or by several side by side."""

    KIND: ClassVar[str] = "representations"

    @cached_property
    def facts(self) -> _Manifest:
        """The manifest, checked; raises CorruptArtifactError."""
        return checked_manifest(self, _Manifest)

    @property
    def content(self) -> RepresentationsContent:
        """`manifest.content`, checked."""
        return self.facts.content

    @cached_property
    def prior(self) -> PriorIdentity | Combination:
        """The prior that made them."""
        return identity_from_dict(self.content.prior)

    @property
    def dtype(self) -> str:
        """`float16` or `float32`."""
        return self.facts.parameters.dtype

    @property
    def precision(self) -> str:
        """`auto` or `bf16`, as in EmbedSettings."""
        return self.facts.parameters.precision

    @property
    def images_sha256(self) -> str:
        """Digest of the images, see `DataSet.images_sha256`."""
        return self.facts.inputs.images

    @property
    def arithmetic(self) -> dict[str, Any] | None:
        """How all rows were computed, see rela.stages.embed.arithmetic; None if not alike or unknown."""
        return self.facts.provenance.arithmetic

    @property
    def command(self) -> list[str]:
        """The words of the command that makes them; none in those of earlier versions."""
        return list(self.facts.provenance.command)

    @property
    def file(self) -> Path:
        """The HDF5 file of features."""
        return self.path / REPRESENTATIONS_FILE

    def matrix(self, verify: bool = True) -> "Matrix":
        """The features, memory-mapped; those of several shards are read as one.

        Raises CorruptArtifactError if `verify` finds that a file was changed, DataError if one is damaged.
        """
        from rela.representations.matrix_file import open_matrix, stack_matrices

        shards = self.content.shards
        names = [shard.file for shard in shards if shard.num_rows] or [REPRESENTATIONS_FILE]
        paths = [self.sound_file(name) if verify else self.path / name for name in names]
        matrices = [open_matrix(path, verify=False) for path in paths]
        return stack_matrices(self.path, matrices) if shards else matrices[0]

    @property
    def spent(self) -> Timing:
        """What making these took; for a combination, without its components."""
        return self.facts.provenance

    @property
    def seconds_by_phase(self) -> dict[str, float]:
        """`embed`, and for a combination `combine` too."""
        known = self.facts.provenance
        if not known.components_seconds:
            return {"embed": known.seconds}
        return {"embed": round(sum(known.components_seconds), 4), "combine": known.seconds}

    @property
    def cpu_seconds(self) -> tuple[float | None, ...]:
        """CPU seconds of these and of every component; None where they were not measured."""
        known = self.facts.provenance
        missing = len(known.components_seconds) - len(known.components_cpu_seconds)
        return known.cpu_seconds, *known.components_cpu_seconds, *[None] * missing

    def shown(self) -> dict[str, Any]:
        """The prior, the images, the shape and where they are."""
        rows, width = self.content.shape
        return {
            "prior": self.prior.name,
            "data set": self.content.dataset,
            "split": self.content.split,
            "rows": rows,
            "width": width,
            "type": self.dtype,
            "crops": self.content.crops or None,
            "path": self.path,
        }


class _TargetsManifest(Struct, frozen=True):
    inputs: _Images
    provenance: Timing


@dataclass(frozen=True, repr=False)
class Targets(Result, Artifact):
    """What stage 1 regresses: representations, projected."""

    KIND: ClassVar[str] = "targets"

    @cached_property
    def facts(self) -> _TargetsManifest:
        """The manifest, checked; raises CorruptArtifactError."""
        return checked_manifest(self, _TargetsManifest)

    @property
    def images_sha256(self) -> str:
        """Digest of the images, see `DataSet.images_sha256`."""
        return self.facts.inputs.images

    @property
    def spent(self) -> Timing:
        """What making them took."""
        return self.facts.provenance

    def shown(self) -> dict[str, Any]:
        """Where they are."""
        return {"path": self.path}


def map_words(shape: tuple[int, ...]) -> str:
    """`7×7×64`."""
    return "×".join(map(str, shape))


_ABOUT_FILE = "about.json"  # describes the future artifact


class _About(Struct, frozen=True):
    what: str
    num_parts: Int
    num_images: Int | None = None
    verb: str = "embed"


def describe(store: PartStore, what: str, verb: str, num_images: int | None = None) -> None:
    """Write beside the parts what they will be, and which command makes them."""
    path = store.directory / _ABOUT_FILE
    if not path.is_file():
        about = _About(what, store.num_parts, num_images, verb)
        write_atomic(path, json.dumps(to_builtins(about)).encode())


def about_parts(directory: Path) -> tuple[str, int | None, int | None, str]:
    """Of the parts in `directory`: what they will be, the numbers of parts and images, and the command."""
    about = read_json(directory / _ABOUT_FILE, _About)
    if about is None or min(about.num_parts, about.num_images or 1) < 1:
        unknown = f"representations {directory.name.removeprefix('.parts-')[:12]}"
        return unknown, None, None, "embed"
    return printable(about.what), about.num_parts, about.num_images, printable(about.verb)
