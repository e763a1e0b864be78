"""Representations that are asked for: what decides a row beside its image, their key, and where they are."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rela.pipeline import Say
from rela.pipeline.fingerprint import fingerprint
from rela.pipeline.parts import PartStore
from rela.stages.embed.format import Format, VectorFormat
from rela.stages.priors.again import embed_commands
from rela.stages.priors.identify import KnownPrior
from rela.stages.settings import EmbedSettings
from rela.stages.workspace.dataset import DataSet
from rela.stages.workspace.representations import Representations
from rela.stages.workspace.workspace import Workspace, open_as, slug

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SHOWN_NAME = 120  # characters of the name of a prior in the name of a folder
STAGE_VERSION = 1


@dataclass(frozen=True)
class Vectors:
    """What decides a row of features beside its image: a prior and how it is used.

    `rela.stages.embed.maps.Maps` are the same in another shape.
    """

    workspace: Workspace
    prior: KnownPrior
    settings: EmbedSettings

    def key_of(self, images_sha256: str) -> str:
        """SHA-256 of what decides the features of these images."""
        meaning: dict[str, Any] = {
            "stage": "embed",
            "version": STAGE_VERSION,
            "images": images_sha256,
            "prior": self.prior.identity.key(),
            "dtype": self.settings.dtype,
        }
        if self.settings.precision != EmbedSettings.precision:
            meaning["precision"] = self.settings.precision
        if self.settings.crops:
            from rela.data.crops import CROPS_VERSION

            meaning["crops"] = {"num": self.settings.crops, "version": CROPS_VERSION}
        return fingerprint(meaning)

    def of_other_images(self) -> list[Representations]:
        """Those in the workspace with the same key but for the images."""
        found = self.workspace.representations_and_maps()
        return [each for each in found if each.fingerprint == self.key_of(each.images_sha256)]

    @property
    def grid(self) -> str:
        """`7x7` of maps with so many positions; empty for vectors."""
        return ""

    @property
    def options(self) -> list[str]:
        """Of `rela embed`, beside those of EmbedSettings."""
        return []

    @property
    def layer(self) -> str:
        """Of the network, see rela.models.layers."""
        return f"{self.prior.identity.layer}:{self.grid}".removesuffix(":")

    def load(self) -> Any:
        """The network of the prior, at its own layer."""
        return self.prior.load()

    def num_features(self, network: Any) -> int:
        """The features that the network returns for an image at `layer`."""
        return self.prior.identity.feature_dim

    def check_layer(self) -> None:
        """Raises ChoiceError if the network has no such features."""

    def check_size(self, num_images: int, store: PartStore, say: Say) -> None:
        """Say how large the result becomes if that is much; raises StorageError if the disk is too small."""

    def recorded_format(self, directory: Path) -> bytes | None:
        """What is kept of the format beside rows, or parts of them; None if it is not decided yet."""
        return b""

    def read_format(self, recorded: bytes) -> Format:
        """The format of that record; raises DataError if it is damaged."""
        return VectorFormat(self.prior.identity.feature_dim, self.settings.dtype)

    def fit_format(self, features: "NDArray[np.float32]") -> bytes:
        """The record of a format that depends on the features of some images."""
        raise AssertionError("vectors are stored as they are")


@dataclass(frozen=True)
class Wanted:
    """Representations of one split of a data set."""

    kind: Vectors
    dataset: DataSet
    split: str

    @cached_property
    def images_sha256(self) -> str:
        """Digest of the ordered images."""
        return self.dataset.images_sha256(self.split)

    @cached_property
    def image_digests(self) -> "NDArray[np.uint8]":
        """[N, 32]: the SHA-256 of every stored image; raises DataError if the CSV is damaged."""
        return digests_of(self.dataset.image_sha256s(self.split))

    @cached_property
    def key(self) -> str:
        """SHA-256 of what decides the features."""
        return self.kind.key_of(self.images_sha256)

    @property
    def command(self) -> list[str]:
        """The words of the command that makes them."""
        kind, known = self.kind, [(self.kind.prior.identity, self.kind.prior.run)]
        [words] = embed_commands(kind.workspace, self.dataset, known, kind.settings, self.split)
        return [*words, *kind.options]

    @property
    def names(self) -> Path:
        """The CSV with the name of each image."""
        return self.dataset.index_path(self.split)

    @property
    def destination(self) -> Path:
        """Where they are to be."""
        kind = self.kind
        with_crops = f"-{kind.settings.crops}crops" if kind.settings.crops else ""
        prior = f"{slug(kind.prior.identity.name)[:SHOWN_NAME]}{with_crops}"
        with_grid = f"-{kind.grid}" if kind.grid else ""
        name = f"{self.dataset.name}-{self.split}-{prior}{with_grid}-{self.key[:12]}"
        return kind.workspace.representations_dir / name

    def find(self) -> Representations | None:
        """The artifact, under any name."""
        existing = open_as(Representations, self.destination)
        workspace = self.kind.workspace
        return existing or workspace.representations_by_key(self.images_sha256, self.key)


def digests_of(sha256s: Sequence[str]) -> "NDArray[np.uint8]":
    """Hexadecimal digests as an array [N, 32]."""
    import numpy as np

    return np.frombuffer(bytes.fromhex("".join(sha256s)), np.uint8).reshape(-1, 32)
