"""Maps of features, k × k positions per image: representations of another shape than vectors."""

import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rela.errors import DataError
from rela.options import option_words
from rela.pipeline import Say
from rela.pipeline.errors import StorageError
from rela.pipeline.files import read_regular
from rela.pipeline.fingerprint import fingerprint
from rela.pipeline.manifest import remedy
from rela.pipeline.parts import PartStore
from rela.stages.display import human_bytes
from rela.stages.embed.format import FORMAT_FILE, Format
from rela.stages.embed.wanted import Vectors
from rela.stages.settings import DenseSettings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

STAGE_VERSION = 2


@dataclass(frozen=True)
class Maps(Vectors):
    """What decides a map beside its image, but for the projection, which is fitted to some of the images."""

    dense: DenseSettings

    def key_of(self, images_sha256: str) -> str:
        """SHA-256 of what decides the maps of these images."""
        from rela.data.crops import CROPS_VERSION

        settings, crops = self.settings, {"num": self.settings.crops, "version": CROPS_VERSION}
        return fingerprint(
            {
                "stage": "maps",
                "version": STAGE_VERSION,
                "images": images_sha256,
                "prior": self.prior.identity.key(),
                "side": self.dense.dense,
                "width": self.dense.dense_width,
                "dtype": self.dense.dense_dtype,
                "precision": settings.precision,
                "crops": crops if settings.crops else None,
            }
        )

    @property
    def grid(self) -> str:
        """`7x7` for maps with so many positions."""
        return f"{self.dense.dense}x{self.dense.dense}"

    @property
    def options(self) -> list[str]:
        """Of `rela embed`, beside those of EmbedSettings."""
        return option_words(DenseSettings, vars(self.dense))

    @cached_property
    def _network(self) -> Any:
        return self.prior.load()

    def load(self) -> Any:
        """The network of the prior, at its own layer; loaded once."""
        return self._network

    def num_features(self, network: Any) -> int:
        """k² · C; raises ChoiceError if the map of the layer has fewer positions."""
        from rela.models.backbones import feature_dim
        from rela.models.layers import with_layers

        return feature_dim(with_layers(network, [self.layer]), self.prior.identity.image_size)

    def check_layer(self) -> None:
        """Raises ChoiceError if the map of the layer has fewer positions."""
        if not self.of_other_images():  # which would have been refused
            self.num_features(self._network)

    def check_size(self, num_images: int, store: PartStore, say: Say) -> None:
        """Say how large the maps become; raises StorageError if the disk is too small for them."""
        dense, crops = self.dense, self.settings.crops
        size = bytes_of_maps(num_images * (crops or 1), dense)
        of_crops = f" of {crops} crops each" if crops else ""
        say(
            f"maps of {self.prior.identity.layer}: {num_images:,} images{of_crops} × {dense.dense} × "
            f"{dense.dense} positions × at most {dense.dense_width} components of {dense.dense_dtype}: "
            f"{human_bytes(size)} on disk, twice that while the parts are joined"
        )
        there = sum(path.stat().st_size for path in store.finished())
        place = self.workspace.root
        while not place.is_dir():
            place = place.parent
        free = shutil.disk_usage(place).free
        if 2 * size - there > free:
            raise StorageError(
                f"{place} has {human_bytes(free)} free, these maps need {human_bytes(2 * size - there)}; "
                "free some space, or choose a smaller --dense, --dense-width or --crops, or --dense-dtype "
                "int8"
            )

    def recorded_format(self, directory: Path) -> bytes | None:
        """The projection that is kept there; None if there is none. Raises DataError if it is damaged.

        So does one that finished parts need and that is missing.
        """
        path = directory / FORMAT_FILE
        try:
            recorded = read_regular(path)
        except FileNotFoundError:
            if not PartStore(directory, 0).finished():
                return None
            raise DataError(
                f"{path} is missing, without which the finished parts mean nothing; {remedy(directory)}"
            ) from None
        try:
            self.read_format(recorded)
        except DataError as error:
            raise DataError(f"{path} is damaged; {remedy(directory)}") from error
        return recorded

    def read_format(self, recorded: bytes) -> Format:
        """The format of that record; raises DataError if it is damaged."""
        from rela.training.maps import MapFormat

        return MapFormat.from_bytes(recorded)

    def fit_format(self, features: "NDArray[np.float32]") -> bytes:
        """The record of the projection that fits the maps [B, k² · C]; raises DataError for NaN and Inf."""
        import numpy as np

        from rela.training.maps import MapFormat

        dense, num_positions = self.dense, len(features) * self.dense.dense**2
        positions = features.reshape(num_positions, -1)
        if not np.isfinite(positions).all():
            raise DataError("the prior returns NaN or Inf for some images; check its weights")
        fitted = MapFormat.fit(positions, dense.dense, dense.dense_width, dense.dense_dtype)
        return fitted.to_bytes()


def bytes_of_maps(num_rows: int, dense: DenseSettings) -> int:
    """Size of the file, without its header."""
    return num_rows * dense.dense**2 * dense.dense_width * (1 if dense.dense_dtype == "int8" else 2)
