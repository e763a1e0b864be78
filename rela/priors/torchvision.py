"""Priors from torchvision: default pretrained weights, or a local file for the same architecture."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rela.errors import ChoiceError, DataError, UnavailableError
from rela.priors.prior import Prior, PriorRequest, prior_with

if TYPE_CHECKING:
    from torch import nn

    from rela.models.preprocessing import Preprocessing

PREFIX, METAVAR, EXAMPLE, ABOUT = "", "NAME", "resnet18", "downloaded on first use"
EXTRA, LITERAL = "", ""
PACKAGES = {"torchvision": "torchvision"}


def resolve(request: PriorRequest) -> Prior:
    """A torchvision model by name, with its own weights and preprocessing.

    Raises ChoiceError for unknown names, UnavailableError naming the file to fetch when there is no
    network, DataError when the weights do not fit.
    """
    import torch

    from rela.models.backbones import parse_model_name
    from rela.models.preprocessing import preprocessing_for

    parsed = parse_model_name(request.name)
    defaults = _default_weights(parsed.torchvision_name)
    if defaults is None or parsed.small or request.ignores_published_preprocessing:
        preprocessing = preprocessing_for(request.image_size)
    else:
        preprocessing = _preprocessing(defaults)
        if request.resizes and request.image_size != preprocessing.crop:
            _check_any_size(request.name, preprocessing.crop)
            preprocessing = preprocessing.at(request.image_size)
    note = ""
    if request.weights is not None:
        path = request.weights
        backbone, note = _from_file(request, preprocessing.crop, path)
    elif defaults is None or parsed.small:
        raise ChoiceError(
            f"{request.name} has no published weights; give --weights FILE, or use "
            f"--prior random:{request.name}"
        )
    else:
        path = Path(torch.hub.get_dir()) / "checkpoints" / Path(defaults.url).name
        backbone = _published(parsed.torchvision_name, defaults, path)
    name = request.name if request.weights is None else f"{request.name}@{request.weights.stem}"
    return prior_with(backbone, name, request.name, preprocessing, path, note)


def _check_any_size(name: str, published_size: int) -> None:
    """Torchvision's vision transformers have position embeddings for one size."""
    if name.startswith("vit_"):
        raise ChoiceError(
            f"{name} takes images of {published_size}×{published_size} pixels; remove --image-size, or "
            "take a model of timm (timm:vit_base_patch16_224), which takes other sizes"
        )


def published_files() -> dict[str, str]:
    """Every model with published weights, and the name that torch.hub gives to their file."""
    import torchvision.models as tv

    found = {name: _default_weights(name) for name in tv.list_models(module=tv)}
    return {name: Path(w.url).name for name, w in found.items() if w is not None}


def _published(name: str, weights: Any, path: Path) -> "nn.Module":
    """Loading by torchvision: download if needed, rename old keys; the file must be the published one."""
    from pickle import UnpicklingError
    from urllib.error import URLError

    import torchvision.models as tv

    from rela.models.backbones import remove_classifier

    try:
        if path.is_file() and not _has_its_hash(path):
            raise ValueError("its SHA-256 is not the one in its name")
        model: nn.Module = tv.get_model(name, weights=weights)
    except (URLError, TimeoutError, ConnectionError) as error:
        raise UnavailableError(
            f"cannot download the weights of {name} ({getattr(error, 'reason', error)}); fetch "
            f"{weights.url} on a machine with a network and put it at {path}, or pass --weights FILE"
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, UnpicklingError) as error:
        raise DataError(
            f"{path} is not the published weights file ({str(error).splitlines()[0]}); remove it "
            f"and fetch {weights.url} again"
        ) from error
    remove_classifier(model)
    return model.eval()


def _has_its_hash(path: Path) -> bool:
    """torch.hub's convention: HASH in NAME-HASH.pth starts its SHA-256. It checks only downloads."""
    from rela.pipeline.fingerprint import file_sha256

    named = re.search(r"-([0-9a-f]{8,})\.", path.name)
    return named is None or file_sha256(path).startswith(named.group(1))


def _from_file(request: PriorRequest, image_size: int, path: Path) -> "tuple[nn.Module, str]":
    """The same architecture with the weights of a local file, every key accounted for."""
    from rela.models.backbones import assemble_backbone
    from rela.models.foreign_checkpoints import load_backbone_weights

    backbone, classifier = assemble_backbone(request.name, image_size, seed=0)
    if hasattr(backbone, "transform_input"):  # what torchvision sets along with these weights
        setattr(backbone, "transform_input", True)  # noqa: B010
    note = load_backbone_weights(backbone, path, classifier, request.trust_code, _modern_key)
    return backbone.eval(), note


def _modern_key(key: str) -> str:
    """DenseNet files from before 2018 have `norm.1` where the modules now have `norm1`."""
    return re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.(?=[12]\.)", r"\1", key)


def _default_weights(name: str) -> Any | None:
    import torchvision.models as tv

    try:
        return tv.get_model_weights(name)["DEFAULT"]
    except (KeyError, ValueError):
        return None


def _preprocessing(weights: Any) -> "Preprocessing":
    """The preset that torchvision ships with the weights."""
    from rela.models.preprocessing import Preprocessing

    preset = weights.transforms()
    return Preprocessing(
        resize=int(preset.resize_size[0]),
        crop=int(preset.crop_size[0]),
        interpolation=preset.interpolation.value,
        mean=tuple(preset.mean),
        std=tuple(preset.std),
    )
