"""Priors from torchvision: default pretrained weights, or a local file for the same architecture."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rela.errors import ChoiceError, DataError, UnavailableError, one_line
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
    published = None if parsed.small else _published_weights(request)
    if published is None:
        preprocessing = preprocessing_for(request.image_size)
    else:
        preprocessing = _preprocessing(published)
        if request.resizes and request.image_size != preprocessing.crop:
            preprocessing = preprocessing.at(request.image_size)
    if request.weights is not None:
        return _from_file(request, preprocessing, request.weights)
    if published is None:
        raise ChoiceError(
            f"{request.name} has no published weights; give --weights FILE, or use "
            f"--prior random:{request.name}"
        )
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(published.url).name
    backbone = _resized(_published(parsed.torchvision_name, published, path), request)
    return prior_with(backbone, request.name, request.name, preprocessing, path)


def _published_weights(request: PriorRequest) -> Any | None:
    """Torchvision's entry for the weights: the one whose file is given, else its default.

    Several have been published of some models, with a preprocessing each. A file is recognised by its
    name, or by the hash that the published name holds.
    """
    import torchvision.models as tv

    from rela.pipeline.fingerprint import file_sha256

    default, path = _default_weights(request.name), request.weights
    if default is None or path is None or not path.is_file():
        return default
    entries = list(tv.get_model_weights(request.name))
    found = [entry for entry in entries if Path(entry.url).name == path.name]
    if not found and len(entries) > 1:
        sha256 = file_sha256(path)
        found = [e for e in entries if (h := _hash_in(e.url)) and sha256.startswith(h)]
    return found[0] if found else default


def _resized(backbone: "nn.Module", request: PriorRequest) -> "nn.Module":
    """A vision transformer with torchvision's interpolated position embeddings; others take any size."""
    from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

    from rela.models.backbones import build_backbone

    size = request.image_size
    if not isinstance(backbone, VisionTransformer) or not request.resizes:
        return backbone
    resized = build_backbone(request.name, size, seed=0)
    state: Any = backbone.state_dict()
    resized.load_state_dict(interpolate_embeddings(size, backbone.patch_size, state))
    return resized.eval()


def names() -> list[str]:
    """See `PriorKind.names`."""
    from rela.models.backbones import model_names

    return model_names()


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

    named = _hash_in(path.name)
    return named is None or file_sha256(path).startswith(named)


def _hash_in(name: str) -> str | None:
    found = re.search(r"-([0-9a-f]{8,})\.", name)
    return None if found is None else found[1]


def _from_file(request: PriorRequest, preprocessing: "Preprocessing", path: Path) -> Prior:
    """The same architecture with the weights of a local file, every key accounted for.

    A vision transformer is built for the size of the position embeddings in the file, if none is chosen.
    """
    from rela.models.backbones import assemble_backbone
    from rela.models.foreign_checkpoints import find_encoder

    for _ in range(2):
        size = preprocessing.crop
        backbone, classifier = assemble_backbone(request.name, size, seed=0)
        encoder = find_encoder(backbone, path, classifier, request.trust_code, request.encoder)
        trained = encoder.trained_image_size(backbone, size)
        if request.resizes or trained in (None, size):
            break
        preprocessing = preprocessing.at(trained)
    if hasattr(backbone, "transform_input"):  # what torchvision sets along with these weights
        setattr(backbone, "transform_input", True)  # noqa: B010
    encoder.load(backbone, path)
    name = f"{request.name}@{one_line(path.name)}"
    return prior_with(backbone.eval(), name, request.name, preprocessing, path, encoder.note())


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
