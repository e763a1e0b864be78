"""Files made to have their reader run code, read other files or ask for all the memory there is.

Every function returns, by the name of the attack, a suffix and the content or what writes the file.
"""

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from benchmarks.faults.damaged_images import POSTSCRIPT, claiming
from rela.data.ffcv_format import HEADER, METADATA_START

Content = bytes | Callable[[Path], object]
Files = dict[str, tuple[str, Content]]
_BOMB_BYTES = 1 << 28  # four times the memory that a reader may take


class Bomb:
    """Creates the folder `trace` when it is unpickled by a reader that runs code."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


def weights(trace: Path) -> Files:
    """Weights; running their code leaves `trace`."""
    bomb, kernel = Bomb(trace), torch.zeros(64, 3, 3, 3)
    pickled = pickle.dumps(bomb)
    paths: dict[str, Any] = {"weight": torch.zeros(1)}
    for _ in range(6):
        paths = {str(way): paths for way in range(300)}
    paths["again"] = paths  # dictionaries within each other, and back

    def saved(value: Any, **options: Any) -> Content:
        return lambda path: torch.save(value, path, **options)

    def script(path: Path) -> None:
        linear = torch.nn.Linear(2, 2)
        torch.jit.save(torch.jit.trace(linear, torch.zeros(1, 2)), path)  # type: ignore[no-untyped-call]

    pt: dict[str, Content] = {
        "pickle": pickled,
        "TorchScript": script,
        "zip bomb": _rewritten(
            lambda name, data: bytes(_BOMB_BYTES) if "/data/" in name else data, zipfile.ZIP_DEFLATED
        ),
        "absurd sizes in the archive": _absurd_sizes,
        # a pickle that claims 2^40 numbers in place of 1000
        "absurd storage": _rewritten(
            lambda name, data: data.replace(b"M\xe8\x03", b"\x8a\x06" + (1 << 40).to_bytes(6, "little"))
            if name.endswith("data.pkl") else data
        ),
        "expanded tensor": saved({"conv1.weight": torch.zeros(1).expand(1 << 40)}),
        "sparse tensor": saved({"conv1.weight": kernel.to_sparse()}),
        "tensor without values": saved({"conv1.weight": kernel.to("meta")}),
        "300^6 ways through a checkpoint": saved(paths),
    }  # fmt: skip
    safetensors = {
        "header of 2^62": _safetensors(b"{}", 1 << 62),
        "header of 90 MB": _safetensors(b"{}", 90_000_000),
        "shape of 2^60": _safetensors(
            {"dtype": "F32", "shape": [1 << 60], "data_offsets": [0, 64]}
        ),
        "offsets of 2^60": _safetensors(
            {"dtype": "U8", "shape": [4], "data_offsets": [4, 1 << 60]}
        ),
        "nested": _safetensors(b"[" * 100_000),
    }
    lightning = {"state_dict": {"weight": torch.zeros(2)}, "hyper_parameters": bomb}
    old = saved({"bomb": bomb}, _use_new_zipfile_serialization=False)
    return {
        **{name: (".pt", content) for name, content in pt.items()},
        "pickle called safetensors": (".safetensors", pickled),
        "pickle in a checkpoint": (".ckpt", saved(lightning)),
        "pickle in an old checkpoint": (".pth", old),
        **{
            f"safetensors, {name}": (".safetensors", content)
            for name, content in safetensors.items()
        },
    }


def _rewritten(
    change: Callable[[str, bytes], bytes], compression: int = zipfile.ZIP_STORED
) -> Content:
    """A file of torch.save with every member of its archive changed."""

    def write(path: Path) -> None:
        file = io.BytesIO()
        torch.save({"weight": torch.zeros(1000)}, file)
        with zipfile.ZipFile(file) as old, zipfile.ZipFile(path, "w", compression) as new:
            for name in old.namelist():
                new.writestr(name, change(name, old.read(name)))

    return write


def _absurd_sizes(path: Path) -> None:
    _rewritten(lambda name, data: data)(path)
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\x01\x02")  # the central directory's sizes
    while entry >= 0:
        content[entry + 20 : entry + 28] = struct.pack("<II", 0xFFFFFFF0, 0xFFFFFFF0)
        entry = content.find(b"PK\x01\x02", entry + 4)
    path.write_bytes(content)


def _safetensors(header: dict[str, Any] | bytes, claimed: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps({"w": header}).encode()
    return struct.pack("<Q", len(text) if claimed is None else claimed) + text + bytes(64)


def hdf5(secret: Path) -> Files:
    """Matrices that lead to the file `secret`, or claim to be enormous."""
    rows, outside, endless = np.zeros((10, 4), "float16"), str(secret), h5py.h5s.UNLIMITED
    shape = (10, 4)
    virtual = h5py.VirtualLayout(shape, "float16")
    virtual[:] = h5py.VirtualSource(outside, "representations", shape)
    growing = h5py.VirtualLayout(shape, "float16", maxshape=(None, 4))
    source = h5py.VirtualSource(outside, "representations", shape, maxshape=(None, 4))
    growing[:endless, :] = source[:endless, :]

    def made(*arguments: Any, **options: Any) -> Callable[[h5py.File, str], object]:
        return lambda file, name: file.create_dataset(name, *arguments, **options)

    def with_attributes(file: h5py.File, name: str) -> None:
        file.create_dataset(name, (5, 2, 5), "uint16")
        for number in range(40):
            file.attrs.create(f"a{number}", np.zeros(1 << 16, np.uint8))

    def digests(num_rows: int) -> np.ndarray:
        return np.array([b"0" * 64] * -(-num_rows // 1024), "S64")

    elsewhere = {"external": [(outside, 0, endless)]}
    attacks: dict[str, dict[str, Any]] = {
        "external link": {"representations": h5py.ExternalLink(outside, "/representations")},
        "external link as crops": {"crops": h5py.ExternalLink(outside, "/crops")},
        "soft link": {"other": rows, "representations": h5py.SoftLink("/other")},
        "external storage": {"representations": made((100, 4), "float16", **elsewhere)},
        "external storage of digests": {"part_sha256": made((1,), "S64", **elsewhere)},
        "virtual data set": {
            "representations": lambda file, name: file.create_virtual_dataset(name, virtual)
        },
        "virtual data set without end": {
            "representations": lambda file, name: file.create_virtual_dataset(name, growing)
        },
        "2^60 rows": {"representations": made((1 << 60, 4), "float16", chunks=(1024, 4))},
        "2^40 rows, never written": {"representations": made((1 << 40, 4), "float16")},
        "2^33 crops": {"crops": made((1 << 33, 1, 5), "uint16")},
        "2^33 digests": {"part_sha256": made((1 << 33,), "S64")},
        "long attributes": {"crops": with_attributes},
        "filters": {
            "representations": made(
                (1 << 28, 4), "float16", chunks=(1 << 20, 4), compression="gzip"
            ),
            "part_sha256": digests(1 << 28),
        },
    }

    def writer(changed: dict[str, Any]) -> Content:
        def write(path: Path) -> None:
            sound = {"representations": rows, "part_sha256": digests(10)}
            with h5py.File(path, "w", libver="v110") as file:
                for name, value in {**sound, **changed}.items():
                    if callable(value):
                        value(file, name)
                    else:
                        file[name] = value

        return write

    return {name: (".h5", writer(changed)) for name, changed in attacks.items()}


def images() -> Files:
    """Images of absurd sizes, and a program."""
    found: Files = {
        f"{suffix} of {side:,} × {side:,}": (suffix, content)
        for side in (60_000, 0x7FFFFFFF)
        for suffix, content in claiming(side, side).items()
    }
    return {**found, "PostScript": (".png", POSTSCRIPT)}


def betons(content: bytes) -> Files:
    """A sound beton with absurd counts, pointers and sizes."""

    def with_bytes(offset: int, new: bytes) -> bytes:
        return content[:offset] + new + content[offset + len(new) :]

    fields = HEADER.fields
    assert fields is not None
    count, table = fields["num_samples"][1], fields["alloc_table_ptr"][1]
    contents = {}
    for value in (0, 1 << 20, 1 << 40, (1 << 64) - 1):
        contents[f"{value} samples"] = with_bytes(count, struct.pack("<Q", value))
        contents[f"table at {value}"] = with_bytes(table, struct.pack("<Q", value))
    largest = struct.pack("<HH", 65_535, 65_535)  # width and height follow the mode
    for offset in range(1, 4):
        what = f"an image of 65,535 × 65,535 (at {offset})"
        contents[what] = with_bytes(METADATA_START + offset, largest)
    contents["a JPEG of 65,535 × 65,535"] = with_bytes(METADATA_START, b"\0\0" + largest)
    return {name: (".beton", content) for name, content in contents.items()}
