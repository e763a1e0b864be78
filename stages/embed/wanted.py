"""Representations that are asked for: their key, their name, and where they are."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rela.pipeline.fingerprint import fingerprint
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
class Wanted:
    """Representations of one split of a data set by a prior."""

    workspace: Workspace
    dataset: DataSet
    split: str
    prior: KnownPrior
    settings: EmbedSettings

    @cached_property
    def images_sha256(self) -> str:
        """Digest of the ordered images."""
        return self.dataset.images_sha256(self.split)

    @cached_property
    def image_digests(self) -> "NDArray[np.uint8]":
        """[N, 32]: the SHA-256 of every stored image; raises DataError if the CSV is damaged."""
        import numpy as np

        joined = bytes.fromhex("".join(self.dataset.image_sha256s(self.split)))
        return np.frombuffer(joined, np.uint8).reshape(-1, 32)

    @cached_property
    def key(self) -> str:
        """SHA-256 of what decides the features."""
        return self.key_of(self.images_sha256)

    def key_of(self, images_sha256: str) -> str:
        """The same of other images."""
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

    @property
    def command(self) -> list[str]:
        """The words of the command that makes them."""
        known = [(self.prior.identity, self.prior.run)]
        [words] = embed_commands(self.workspace, self.dataset, known, self.settings, self.split)
        return words

    @property
    def shape(self) -> str:
        """In the name, what is beside the prior; empty for vectors."""
        return ""

    @property
    def destination(self) -> Path:
        """Where they are to be."""
        with_crops = f"-{self.settings.crops}crops" if self.settings.crops else ""
        prior = f"{slug(self.prior.identity.name)[:SHOWN_NAME]}{with_crops}"
        name = f"{self.dataset.name}-{self.split}-{prior}{self.shape}-{self.key[:12]}"
        return self.workspace.representations_dir / name

    def find(self) -> Representations | None:
        """The artifact, under any name."""
        existing = open_as(Representations, self.destination)
        return existing or self.workspace.representations_by_key(self.images_sha256, self.key)
