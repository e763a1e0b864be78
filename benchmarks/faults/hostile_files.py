"""Files made to have their reader run code, read other files or ask for all the memory there is."""

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from benchmarks.faults.damaged_images import png_claiming

Builder = Callable[
    [Path, Path, Path], None
]  # the file to write, a secret, what running code would leave


class Bomb:
    """Unpickled by those who run what is in a pickle, it leaves a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


# Weights


def _pickle(path: Path, secret: Path, trace: Path) -> None:
    path.write_bytes(pickle.dumps(Bomb(trace)))


def _pickle_in_a_checkpoint(path: Path, secret: Path, trace: Path) -> None:
    import torch

    torch.save({"state_dict": {"weight": torch.zeros(2)}, "hyper_parameters": Bomb(trace)}, path)


def _old_checkpoint(path: Path, secret: Path, trace: Path) -> None:
    import torch

    torch.save({"bomb": Bomb(trace)}, path, _use_new_zipfile_serialization=False)


def _script(path: Path, secret: Path, trace: Path) -> None:
    import torch

    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), path)  # type: ignore[no-untyped-call]


def _rewritten(
    path: Path, change: Callable[[str, bytes], bytes], compression: int = zipfile.ZIP_STORED
) -> None:
    import torch

    file = io.BytesIO()
    torch.save({"weight": torch.zeros(1000)}, file)
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(path, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))


def _zip_bomb(path: Path, secret: Path, trace: Path) -> None:
    _rewritten(
        path, lambda name, data: bytes(1 << 29) if "/data/" in name else data, zipfile.ZIP_DEFLATED
    )


def _absurd_zip_size(path: Path, secret: Path, trace: Path) -> None:
    _rewritten(path, lambda name, data: data)
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\x01\x02")  # the central directory's sizes
    while entry >= 0:
        content[entry + 20 : entry + 28] = struct.pack("<II", 0xFFFFFFF0, 0xFFFFFFF0)
        entry = content.find(b"PK\x01\x02", entry + 4)
    path.write_bytes(content)


def _absurd_storage(path: Path, secret: Path, trace: Path) -> None:
    """A pickle that claims 2^40 numbers in place of 1000."""
    number, claim = b"M\xe8\x03", b"\x8a\x06" + (1 << 40).to_bytes(6, "little")
    _rewritten(
        path, lambda name, data: data.replace(number, claim) if name.endswith("data.pkl") else data
    )


def _expanded(path: Path, secret: Path, trace: Path) -> None:
    """One number that is shown 2^40 times."""
    import torch

    torch.save({"conv1.weight": torch.zeros(1).expand(1 << 40)}, path)


def _sparse(path: Path, secret: Path, trace: Path) -> None:
    import torch

    torch.save({"conv1.weight": torch.zeros(64, 3, 3, 3).to_sparse()}, path)


def _without_values(path: Path, secret: Path, trace: Path) -> None:
    import torch

    torch.save({"conv1.weight": torch.zeros(64, 3, 3, 3, device="meta")}, path)


def _many_paths(path: Path, secret: Path, trace: Path) -> None:
    """Dictionaries within each other, 300 ways from each to the next, and back."""
    import torch

    inner: dict[str, Any] = {"weight": torch.zeros(1)}
    for _ in range(6):
        inner = {str(way): inner for way in range(300)}
    inner["again"] = inner
    torch.save(inner, path)


def _safetensors(header: dict[str, Any] | bytes, claimed: int | None = None) -> Builder:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    length = len(text) if claimed is None else claimed
    return lambda path, secret, trace: _write(path, struct.pack("<Q", length) + text + bytes(64))


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


WEIGHTS: dict[str, tuple[str, Builder]] = {
    "pickle": (".pt", _pickle),
    "pickle called safetensors": (".safetensors", _pickle),
    "pickle in a checkpoint": (".ckpt", _pickle_in_a_checkpoint),
    "pickle in an old checkpoint": (".pth", _old_checkpoint),
    "TorchScript": (".pt", _script),
    "zip bomb": (".pt", _zip_bomb),
    "absurd sizes in the archive": (".pt", _absurd_zip_size),
    "absurd storage": (".pt", _absurd_storage),
    "expanded tensor": (".pt", _expanded),
    "sparse tensor": (".pt", _sparse),
    "tensor without values": (".pt", _without_values),
    "300^6 ways through a checkpoint": (".pt", _many_paths),
    "safetensors, header of 2^62": (".safetensors", _safetensors(b"{}", 1 << 62)),
    "safetensors, header of 90 MB": (".safetensors", _safetensors(b"{}", 90_000_000)),
    "safetensors, shape of 2^60": (
        ".safetensors", _safetensors({"w": {"dtype": "F32", "shape": [1 << 60], "data_offsets": [0, 64]}}),
    ),
    "safetensors, offsets of 2^60": (
        ".safetensors", _safetensors({"w": {"dtype": "U8", "shape": [4], "data_offsets": [4, 1 << 60]}}),
    ),
    "safetensors, nested": (".safetensors", _safetensors(b"[" * 100_000)),
}  # fmt: skip


# HDF5


def _hdf5(fill: Callable[[h5py.File, Path], None]) -> Builder:
    def build(path: Path, secret: Path, trace: Path) -> None:
        with h5py.File(path, "w", libver="v110") as file:
            fill(file, secret)

    return build


def _digests(file: h5py.File, rows: int) -> None:
    file["part_sha256"] = np.array([b"0" * 64] * -(-rows // 1024), "S64")


def _outside(file: h5py.File, name: str, shape: tuple[int, ...], dtype: str, secret: Path) -> None:
    """A data set whose bytes are those of another file."""
    file.create_dataset(name, shape, dtype, external=[(str(secret), 0, h5py.h5f.UNLIMITED)])


def _external_link(file: h5py.File, secret: Path) -> None:
    file["representations"] = h5py.ExternalLink(str(secret), "/representations")
    _digests(file, 10)


def _external_crops(file: h5py.File, secret: Path) -> None:
    file["representations"] = np.zeros((10, 4), "float16")
    file["crops"] = h5py.ExternalLink(str(secret), "/crops")
    _digests(file, 10)


def _soft_link(file: h5py.File, secret: Path) -> None:
    file["other"] = np.zeros((10, 4), "float16")
    file["representations"] = h5py.SoftLink("/other")
    _digests(file, 10)


def _external_storage(file: h5py.File, secret: Path) -> None:
    _outside(file, "representations", (100, 4), "float16", secret)
    _digests(file, 100)


def _external_digests(file: h5py.File, secret: Path) -> None:
    file["representations"] = np.zeros((10, 4), "float16")
    _outside(file, "part_sha256", (1,), "S64", secret)


def _virtual(file: h5py.File, secret: Path) -> None:
    layout = h5py.VirtualLayout((10, 4), "float16")
    layout[:] = h5py.VirtualSource(str(secret), "representations", (10, 4))
    file.create_virtual_dataset("representations", layout)
    _digests(file, 10)


def _virtual_without_end(file: h5py.File, secret: Path) -> None:
    layout = h5py.VirtualLayout((10, 4), "float16", maxshape=(None, 4))
    source = h5py.VirtualSource(str(secret), "representations", (10, 4), maxshape=(None, 4))
    layout[: h5py.h5s.UNLIMITED, :] = source[: h5py.h5s.UNLIMITED, :]
    file.create_virtual_dataset("representations", layout)
    _digests(file, 10)


def _absurd(
    name: str, shape: tuple[int, ...], dtype: str, **options: Any
) -> Callable[[h5py.File, Path], None]:
    def fill(file: h5py.File, secret: Path) -> None:
        arrays: dict[str, Any] = {
            "representations": np.zeros((10, 4), "float16"),
            "part_sha256": np.array([b"0" * 64], "S64"),
            name: None,
        }
        for key, values in arrays.items():
            if values is not None:
                file[key] = values
        file.create_dataset(name, shape, dtype, **options)

    return fill


def _long_attributes(file: h5py.File, secret: Path) -> None:
    _absurd("crops", (5, 2, 5), "uint16")(file, secret)
    for number in range(40):
        file.attrs.create(f"a{number}", np.zeros(1 << 16, np.uint8))


def _filtered(file: h5py.File, secret: Path) -> None:
    file.create_dataset(
        "representations", (1 << 28, 4), "float16", chunks=(1 << 20, 4), compression="gzip"
    )
    _digests(file, 10)


HDF5: dict[str, Builder] = {
    "external link": _hdf5(_external_link),
    "external link as crops": _hdf5(_external_crops),
    "soft link": _hdf5(_soft_link),
    "external storage": _hdf5(_external_storage),
    "external storage of digests": _hdf5(_external_digests),
    "virtual data set": _hdf5(_virtual),
    "virtual data set without end": _hdf5(_virtual_without_end),
    "2^60 rows": _hdf5(_absurd("representations", (1 << 60, 4), "float16", chunks=(1024, 4))),
    "2^40 rows, never written": _hdf5(_absurd("representations", (1 << 40, 4), "float16")),
    "2^33 crops": _hdf5(_absurd("crops", (1 << 33, 1, 5), "uint16")),
    "2^33 digests": _hdf5(_absurd("part_sha256", (1 << 33,), "S64")),
    "long attributes": _hdf5(_long_attributes),
    "filters": _hdf5(_filtered),
}


# Images


IMAGES: dict[str, bytes] = {
    "PNG of 60,000 × 60,000": png_claiming(60_000, 60_000),
    "PNG of 2^31 × 2^31": png_claiming(0x7FFFFFFF, 0x7FFFFFFF),
    "GIF of 65,535 × 65,535": b"GIF89a" + b"\xff" * 4 + bytes(3) + b"," + bytes(4) + b"\xff" * 4 + bytes(50),
    "BMP of 2^31 × 2^31": (
        b"BM" + struct.pack("<IHHIIiiHH", 200, 0, 0, 54, 40, 0x7FFFFFFF, 0x7FFFFFFF, 1, 24) + bytes(150)
    ),
    "PPM of 10^9 × 10^9": b"P6 1000000000 1000000000 255\n" + bytes(100),
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n",
}  # fmt: skip


# Betons


def betons(content: bytes) -> Iterator[tuple[str, bytes]]:
    """A sound beton with absurd counts, pointers and sizes."""
    from rela.data.ffcv_format import HEADER, METADATA_START

    def with_bytes(offset: int, new: bytes) -> bytes:
        return content[:offset] + new + content[offset + len(new) :]

    fields = HEADER.fields
    assert fields is not None
    count, table = fields["num_samples"][1], fields["alloc_table_ptr"][1]
    for value in (0, 1 << 20, 1 << 40, (1 << 64) - 1):
        yield f"{value} samples", with_bytes(count, struct.pack("<Q", value))
        yield f"table at {value}", with_bytes(table, struct.pack("<Q", value))
    largest = struct.pack("<HH", 65_535, 65_535)  # width and height follow the mode
    for offset in range(1, 4):
        yield (
            f"an image of 65,535 × 65,535 (at {offset})",
            with_bytes(METADATA_START + offset, largest),
        )
    yield "a JPEG of 65,535 × 65,535", with_bytes(METADATA_START, b"\0\0" + largest)
