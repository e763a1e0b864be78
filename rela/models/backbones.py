"""Model names → backbones: classification models of torchvision or timm without their classifier."""

import copy
import functools
import re
from dataclasses import dataclass

import torch
import torchvision.models as tv
from torch import Tensor, nn

from rela.errors import ChoiceError
from rela.models.own_code.networks import build_own, is_own
from rela.models.own_code.plugins import MODELS, plugin_names
from rela.models.similar_names import similar_names
from rela.models.timm_models import PREFIX as TIMM_PREFIX
from rela.models.timm_models import create_timm_model, timm_classifier_keys, timm_names

_LARGE = 100_000_000  # parameters
_SMALL_SUFFIX = "_small"
_SMALL_FAMILIES = ("resnet", "resnext", "wide_resnet")
AUXILIARY_MODELS = ("googlenet", "inception_v3")  # with classifiers at inner layers


@dataclass(frozen=True)
class ModelName:
    """A parsed name: the torchvision model, and whether its stem is for small images."""

    torchvision_name: str
    small: bool


def model_names() -> list[str]:
    """Every torchvision name that `build_backbone` accepts, including small-image variants."""
    names = tv.list_models(module=tv)
    return sorted([*names, *(n + _SMALL_SUFFIX for n in names if n.startswith(_SMALL_FAMILIES))])


def parse_model_name(name: str) -> ModelName:
    """Check `name`; raises ChoiceError with the closest names if there is no such model."""
    known = model_names()
    if name not in known:
        close = similar_names(name, [*known, *timm_names(), *plugin_names(MODELS)]) or [
            "resnet18",
            "resnet50",
            "vit_b_16",
        ]
        raise ChoiceError(f"no model {name!r}; did you mean {', '.join(close)}?")
    base = name.removesuffix(_SMALL_SUFFIX) if name not in tv.list_models(module=tv) else name
    return ModelName(base, base != name)


def build_backbone(name: str, image_size: int = 224, seed: int | None = None) -> nn.Module:
    """A freshly initialised backbone: images [B, 3, S, S] float → features [B, D].

    `timm:NAME` is timm's model; for `plugin:NAME` and `module:NAME` see `rela.models.own_code`. `NAME_small`
    has the stem for small images: a 3×3 convolution of stride 1 instead of 7×7 of stride 2, and no
    max-pooling. Vision transformers are built for `image_size`. With `seed` the initial weights depend only
    on it and the global random state does not change.
    """
    return assemble_backbone(name, image_size, seed)[0]


def assemble_backbone(
    name: str, image_size: int = 224, seed: int | None = None
) -> tuple[nn.Module, list[str]]:
    """`build_backbone`, and the parameter names of the removed classifier."""
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        if is_own(name):
            return build_own(name, image_size), []
        if name.startswith(TIMM_PREFIX):
            model, _ = create_timm_model(name, image_size)
            return model, timm_classifier_keys(model)
        parsed = parse_model_name(name)
        model = build_classifier(parsed.torchvision_name, image_size)
        if parsed.small:
            old = model.conv1
            assert isinstance(old, nn.Conv2d)
            model.conv1 = nn.Conv2d(3, old.out_channels, 3, stride=1, padding=1, bias=False)
            nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
            model.maxpool = nn.Identity()
    return model, remove_classifier(model)


def build_classifier(torchvision_name: str, image_size: int = 224) -> nn.Module:
    """The torchvision model with its classifier, without auxiliary heads, randomly initialised.

    Raises ChoiceError for a vision transformer whose patches do not fill the image.
    """
    options = classifier_options(torchvision_name, image_size)
    try:
        model: nn.Module = tv.get_model(torchvision_name, weights=None, **options)
    except AssertionError as error:
        patch = re.search(r"^vit_[a-z]_(\d+)$", torchvision_name)
        raise ChoiceError(
            f"{torchvision_name} cannot be built for images of {image_size} pixels ({error}); choose "
            f"{_multiple_of(int(patch[1]), image_size) if patch else 'another --image-size'}"
        ) from error
    return model


def _multiple_of(patch: int, image_size: int) -> str:
    """The size in whole patches that is next to another one."""
    return (
        f"a multiple of {patch}, such as --image-size {patch * max(1, round(image_size / patch))}"
    )


def classifier_options(torchvision_name: str, image_size: int) -> dict[str, object]:
    """Keyword arguments of `torchvision.models.get_model` besides `weights=None`."""
    if torchvision_name in AUXILIARY_MODELS:
        return {"aux_logits": False, "init_weights": True}
    return {"image_size": image_size} if torchvision_name.startswith("vit_") else {}


def remove_classifier(model: nn.Module) -> list[str]:
    """Replace the classifier with the identity, in place; returns its parameter names."""
    removed = []
    for path in classifier_modules(model):
        removed += [f"{path}.{key}" for key in model.get_submodule(path).state_dict()]
        parent, _, child = path.rpartition(".")
        setattr(model.get_submodule(parent), child, nn.Identity())
    return removed


def classifier_modules(model: nn.Module) -> list[str]:
    """The dotted names of the classifier's modules.

    In every torchvision family this is the last linear layer of the module tree, except in SqueezeNet,
    where it is a 1×1 convolution with ReLU and pooling.
    """
    if isinstance(model, tv.SqueezeNet):
        return ["classifier.1", "classifier.2"]
    return [[n for n, m in model.named_modules() if isinstance(m, nn.Linear)][-1]]


@functools.cache
def model_width(name: str, image_size: int) -> int:
    """`feature_dim` of a new backbone of this name."""
    return feature_dim(build_backbone(name, image_size, seed=0), image_size)


def feature_dim(backbone: nn.Module, image_size: int) -> int:
    """D of the backbone's features [B, D], from a forward pass; of large ones on torch's meta device.

    That device computes nothing, but when it is first used, it imports SymPy and PyTorch's compiler: two
    seconds. Raises ChoiceError if images of this size are too small for the architecture.
    """
    parameters = list(backbone.parameters())
    is_large = sum(each.numel() for each in parameters) > _LARGE
    device = "meta" if is_large or any(each.is_meta for each in parameters) else "cpu"
    shapes = copy.deepcopy(backbone).eval().to(device)
    for name, module in list(shapes.named_modules()):
        if type(module) is nn.BatchNorm2d:  # slow on the meta device, and of no effect on shapes
            shapes.set_submodule(name, nn.Identity())
    try:
        with torch.no_grad():
            features: Tensor = shapes(torch.zeros(2, 3, image_size, image_size, device=device))
    except NotImplementedError:  # an operation without a rule for shapes
        with torch.no_grad():
            features = copy.deepcopy(backbone).eval()(torch.zeros(2, 3, image_size, image_size))
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        remedy = "a larger --image-size or a small-image variant such as resnet18_small"
        if patch := re.search(r"divisible by patch size \((\d+)\)", reason):
            remedy = _multiple_of(int(patch[1]), image_size)
        raise ChoiceError(
            f"the model cannot take images of {image_size}×{image_size} pixels ({reason}); choose {remedy}"
        ) from error
    if not isinstance(features, Tensor) or features.ndim != 2:
        what = list(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise ChoiceError(f"the model gives {what} for two images, expected features [2, D]")
    return int(features.shape[1])
