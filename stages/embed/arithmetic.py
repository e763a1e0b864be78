"""What decides the last bits of features: device, packages, engine and the shape of a forward pass.

Two embeddings of the same prior give an image the same bytes where all of these agree.
"""

import contextlib
import hashlib
import json
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rela.pipeline.files import write_atomic
from rela.pipeline.fingerprint import fingerprint
from rela.pipeline.manifest import installed_versions
from rela.pipeline.parts import PartStore
from rela.stages.workspace.schema import read_json

if TYPE_CHECKING:
    import torch

_PREFIX = "arithmetic-"
_NOT_USED = {"python", "lightly", "h5py"}  # of the recorded versions, for forward passes
_DEPENDING = ("model name", "cpu family", "model", "flags")  # code for a CPU is chosen by these


@dataclass(frozen=True)
class Arithmetic:
    """How features are computed.

    - `device`: processor or GPU, `threads` on a CPU, and `versions` of packages;
    - `images_per_batch`: of a forward pass, crops not counted;
    - `asked`: the engine that was asked for, by which it is chosen; `engine`: the chosen one;
    - `number_format`: float32, bf16, autocast or float16.
    """

    device: str
    threads: int
    versions: dict[str, str]
    images_per_batch: int
    asked: str
    engine: str = ""
    number_format: str = ""

    def difference(self, other: "Arithmetic") -> str:
        """The first thing that differs in `other`, in words; empty if nothing does.

        An engine counts as the same if it was chosen by the same wish, or is the one that is asked for.
        """
        if self.device != other.device:
            return f"on {other.device}"
        if other.engine != self.asked != other.asked:
            return f"with --engine {other.asked}; add that"
        if self.number_format and (self.engine, self.number_format) != (
            other.engine, other.number_format,
        ):  # fmt: skip
            return f"by engine {other.engine or 'torch'} in {other.number_format}"
        if self.versions != other.versions:
            both = {*self.versions, *other.versions}
            names = sorted(n for n in both if self.versions.get(n) != other.versions.get(n))
            return f"by other versions of {', '.join(names)}"
        if self.threads != other.threads:
            return f"by {other.threads} thread{'s' * (other.threads != 1)}, not {self.threads}"
        if self.images_per_batch != other.images_per_batch:
            return f"in batches of {other.images_per_batch}, not {self.images_per_batch}"
        return ""


def arithmetic_here(device: "torch.device", images_per_batch: int, asked: str) -> Arithmetic:
    """How this process would compute, as far as that is known before the network is."""
    import torch

    versions = {n: v for n, v in installed_versions().items() if n not in _NOT_USED}
    for package in ("onnxruntime", "openvino"):
        if asked in ("auto", package):
            with contextlib.suppress(metadata.PackageNotFoundError):
                versions[package] = metadata.version(package)
    if device.type == "cuda":
        versions["cudnn"] = str(torch.backends.cudnn.version())  # type: ignore[no-untyped-call]
        name, wish = torch.cuda.get_device_name(device), "torch" if asked == "eager" else asked
        return Arithmetic(name, 0, versions, images_per_batch, wish)
    return Arithmetic(_processor(), torch.get_num_threads(), versions, images_per_batch, asked)


def _processor() -> str:
    """Name and a digest of the instructions that it has."""
    import torch

    known: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        known.setdefault(name.strip(), value.strip())
    capability = torch.backends.cpu.get_cpu_capability()
    decides = "\n".join([capability, *(known.get(name, "") for name in _DEPENDING)])
    digest = hashlib.sha256(decides.encode()).hexdigest()[:8]
    return f"{known.get('model name', 'a CPU')}, {capability} ({digest})"


def record_arithmetic(store: PartStore, arithmetic: Arithmetic) -> None:
    """Beside the parts, one file for each way in which parts are computed."""
    known = asdict(arithmetic)
    if _record_of(store, known).exists():
        return
    if store.finished() and not list(store.directory.glob(f"{_PREFIX}*")):
        known = {}  # parts of an earlier version
    path = _record_of(store, known)
    if not path.exists() and store.directory.is_dir():
        write_atomic(path, json.dumps(known).encode())


def _record_of(store: PartStore, known: dict[str, Any]) -> Path:
    return store.directory / f"{_PREFIX}{fingerprint(known)[:12]}.json"


def recorded_arithmetic(store: PartStore) -> dict[str, Any] | None:
    """That in which all parts were computed; None if there were several, or if it is not known."""
    paths = list(store.directory.glob(f"{_PREFIX}*"))
    return read_json(paths[0], dict[str, Any]) or None if len(paths) == 1 else None
