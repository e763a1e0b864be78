"""Weight files → backbones, strictly; digests of weights that do not depend on the file format."""

import argparse
import hashlib
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from rela.errors import DataError, MisfitError, UnavailableError, one_line
from rela.models.torchscript import is_torchscript, open_torchscript
from rela.pipeline.files import replace_file

_SHOWN, _SHOWN_SHAPES = 6, 2


def state_sha256(state: dict[str, Tensor]) -> str:
    """64 hex digits over names, dtypes, shapes and bytes, in the order of names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}:{tensor.dtype}:{list(tensor.shape)};".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_checkpoint(path: Path, trust_code: bool = False) -> Any:
    """The content of a checkpoint: tensors by name, or nested containers with such.

    Pickles are opened with `weights_only=True`, which executes nothing. A TorchScript file runs code
    when it is opened and so requires `trust_code`. Raises UnavailableError for a missing file,
    UnsafeError for TorchScript, DataError for a file that cannot be opened this way.
    """
    if not path.is_file():
        raise UnavailableError(f"{path}: no such weights file")
    if is_torchscript(path):
        return dict(open_torchscript(path, trust_code).state_dict())
    _refuse_zip_bomb(path)
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        with torch.serialization.safe_globals([argparse.Namespace]):  # plain attributes
            return torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise DataError(f"{path} is not a readable weights file: {error}") from error
    except Exception as error:  # pickle.UnpicklingError, and any other that a hostile pickle causes
        raise DataError(
            f"{path} is not a file of torch.save, or holds more than tensors, and was not opened; "
            "expected a state dict (torch.save(model.state_dict(), ...)) or a .safetensors file. For a "
            "network of your own, write TorchScript: torch.jit.trace(model, images).save('own.pt')"
        ) from error


def _refuse_zip_bomb(path: Path) -> None:
    """Refuse an archive that unpacks to more than its size: torch.save does not compress."""
    try:
        with zipfile.ZipFile(path) as archive:
            claimed = sum(entry.file_size for entry in archive.infolist())
    except Exception:  # not an archive, or one that torch will refuse
        return
    if claimed > path.stat().st_size:
        raise DataError(
            f"{path} claims to hold {claimed:,} bytes in {path.stat().st_size:,} and was not opened; "
            "expected a file of torch.save or a .safetensors file"
        )


def is_plain(tensor: Tensor) -> bool:
    """Whether it is dense in memory: not sparse, quantized, nested or on the meta device."""
    is_dense = tensor.layout is torch.strided and not tensor.is_nested and not tensor.is_quantized
    return is_dense and tensor.device.type == "cpu"


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """A state dict; raises as `read_checkpoint`, and DataError for a file with anything else."""
    loaded = read_checkpoint(path)
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict) or not loaded:
        raise DataError(f"{path} holds {type(loaded).__name__}, expected a state dict")
    others = [k for k, v in loaded.items() if not isinstance(v, Tensor)]
    if others:
        are = "is" if len(others) == 1 else "are"
        raise DataError(f"{path}: {_first(others)} {are} not tensors; expected a state dict")
    return loaded


def load_strict(
    backbone: nn.Module,
    state: dict[str, Tensor],
    classifier_keys: list[str],
    origin: str,
    names_in_file: Sequence[str] = (),
) -> None:
    """Load every tensor of the backbone from `state`, ignoring those of the removed classifier.

    A partly loaded backbone would be partly random, so any missing, unexpected or misshapen key raises
    DataError naming the first of each kind, and nothing is loaded. `names_in_file` are named beside them
    where the file has other names than `state`.
    """
    wanted = backbone.state_dict()
    missing = [k for k in wanted if k not in state and not k.endswith("num_batches_tracked")]
    unexpected = [k for k in state if k not in wanted and k not in classifier_keys]
    misshapen = [
        f"{k} {list(state[k].shape)} instead of {list(wanted[k].shape)}"
        for k in wanted
        if k in state and state[k].shape != wanted[k].shape
    ]
    odd = [k for k in wanted if k in state and not is_plain(state[k])]
    problems = [
        f"{kind}: {_first(keys, _SHOWN_SHAPES if kind == 'misshapen' else _SHOWN)}"
        for kind, keys in (
            ("missing", missing),
            ("not dense", odd),
            ("unexpected", unexpected),
            ("misshapen", misshapen),
        )
        if keys
    ]
    if problems:
        holds = f" The file holds {_first(list(names_in_file))}." if names_in_file else ""
        raise MisfitError(
            f"{origin} does not fit the architecture; {'; '.join(problems)}.{holds} "
            "Nothing was loaded; name the architecture that these weights belong to"
        )
    try:
        backbone.load_state_dict({k: v for k, v in state.items() if k in wanted}, strict=False)
    except RuntimeError as error:  # a dtype that torch does not convert
        reason = str(error).strip().splitlines()[-1].strip()
        raise DataError(f"{origin} does not fit the architecture: {reason}") from error


def recorded(path: Path) -> dict[str, Any]:
    """What `save_weights` recorded; empty for any other file."""
    try:
        with safe_open(path, "pt") as opened:
            found = json.loads((opened.metadata() or {})["rela"])
    except (SafetensorError, OSError, ValueError, KeyError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def recorded_run(path: Path) -> tuple[str, int] | None:
    """Architecture and input size in pixels that `save_weights` recorded; None in any other file."""
    try:
        arch, image_size = (found := recorded(path))["arch"], int(found["image_size"])
    except (ValueError, KeyError, TypeError):
        return None
    return (arch, image_size) if isinstance(arch, str) and image_size > 0 else None


def save_weights(path: Path, backbone: nn.Module, metadata: dict[str, Any]) -> None:
    """Write the backbone as safetensors; the file loads into the torchvision model it came from.

    `metadata` becomes one JSON entry, "rela": safetensors writes several in random order.
    """
    state = {k: v.detach().cpu().contiguous() for k, v in backbone.state_dict().items()}
    # safetensors' own writer would not raise OSError for a full disk
    replace_file(path, save(state, {"rela": json.dumps(metadata, sort_keys=True)}))


def _first(names: list[Any], num_shown: int = _SHOWN) -> str:
    more = f" and {len(names) - num_shown} more" if len(names) > num_shown else ""
    return ", ".join(one_line(str(name)) for name in names[:num_shown]) + more
