"""How features become stored rows: vectors as they are, maps by a projection that is kept beside them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Union

from rela.pipeline.errors import AlreadyPublishedError
from rela.pipeline.files import read_regular, replacing

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from rela.training.maps import MapFormat

Format = Union["VectorFormat", "MapFormat"]
FORMAT_FILE = "format.bin"  # beside the parts, then beside the rows


@dataclass(frozen=True)
class VectorFormat:
    """Features as they are, rounded, with the members of MapFormat."""

    columns: int
    dtype: str
    shape: ClassVar[Sequence[int]] = ()
    attributes: ClassVar[dict[str, str]] = {}

    @property
    def num_features(self) -> int:
        """As many as columns."""
        return self.columns

    def project(self, features: "torch.Tensor") -> "torch.Tensor":
        """The same."""
        return features

    def stored(self, values: "NDArray[np.floating]") -> "NDArray[np.floating]":
        """Rounded."""
        return values.astype(self.dtype, copy=False)


def record_format(directory: Path, recorded: bytes) -> bytes:
    """Keep the record of a format in `directory`; returns that of a faster process, if there is one."""
    path = directory / FORMAT_FILE
    if not recorded:
        return recorded
    try:
        with replacing(path, clobber=False) as temporary:
            temporary.write_bytes(recorded)
    except AlreadyPublishedError:
        return read_regular(path)
    return recorded
