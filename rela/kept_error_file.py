"""A file for HDF5 to write, which keeps errors to itself until HDF5 is done."""

import io
from typing import Any


class KeptErrorFile(io.FileIO):
    """Like `open(path, mode)` without buffer; what the system refuses is raised by `raise_error`.

    When a write fails, the HDF5 library keeps the file open behind h5py's back and can end the whole
    process as it exits. So no write fails here: after the first error nothing more is written.
    """

    error: BaseException | None = None

    def write(self, content: Any) -> int:
        """Write all of `content`, a buffer; returns its bytes, whatever happened."""
        rest = memoryview(content).cast("B")
        num_bytes = len(rest)
        try:
            while rest and self.error is None:
                rest = rest[super().write(rest) :]
        except BaseException as error:  # of a signal, too, while HDF5 closes the file
            self.error = error
        return num_bytes

    def truncate(self, size: int | None = None) -> int:
        """Set the length, in bytes."""
        try:
            if self.error is None:
                super().truncate(size)
        except OSError as error:
            self.error = error
        return self.tell() if size is None else size

    def raise_error(self) -> None:
        """Raise the first error there was."""
        if self.error is not None:
            raise self.error
