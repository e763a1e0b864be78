"""timm's models as backbones, and which of them equal torchvision's."""

from typing import Any

import torch
from torch import nn

from rela.errors import ChoiceError, require
from rela.models.similar_names import similar_names

PREFIX = "timm:"
_ROUNDING = 1e-4  # of float32 in a deep network, relative to the largest feature


def require_timm() -> Any:
    """timm; raises ChoiceError with the command that installs it."""
    return require("timm", "timm", f"{PREFIX}NAME")


def timm_names() -> list[str]:
    """`timm:NAME` of every model, and `timm:NAME.TAG` of published weights; empty without timm."""
    try:
        import timm
    except ImportError:
        return []
    return [PREFIX + name for name in (*timm.list_models(), *timm.list_pretrained())]


def check_timm_name(name: str) -> str:
    """`timm:NAME` or `timm:NAME.TAG` → timm's name; raises ChoiceError with similar names."""
    timm, bare = require_timm(), name.removeprefix(PREFIX)
    if timm.is_model(bare):
        if "." not in bare or bare in timm.list_pretrained(f"{bare.split('.')[0]}.*"):
            return bare
        close = timm.list_pretrained(f"{bare.split('.')[0]}.*")
    else:
        names = (*timm.list_models(), *timm.list_pretrained())
        close = similar_names(bare, names)
    known = ", ".join(PREFIX + n for n in close) or f"for example {PREFIX}resnet18.a1_in1k"
    raise ChoiceError(f"no model {name!r}; did you mean {known}?")


def create_timm_model(name: str, image_size: int) -> tuple[nn.Module, dict[str, Any]]:
    """(model without classifier for images of `image_size` pixels, options that it was made with).

    Models with position embeddings are built for this size, and accept others if the class allows it.
    """
    timm, bare = require_timm(), check_timm_name(name)
    sized = {"img_size": image_size}
    for options in ({**sized, "dynamic_img_size": True}, sized, {}):
        try:
            return timm.create_model(bare, num_classes=0, **options), options
        except TypeError:  # this class does not have the option
            if not options:
                raise
        except (AssertionError, RuntimeError, ValueError) as error:
            raise ChoiceError(
                f"{name} cannot be built for images of {image_size} pixels ({error}); choose "
                "another --image-size"
            ) from error
    raise AssertionError("the last options are none")


def timm_classifier_keys(model: nn.Module) -> list[str]:
    """Parameter names in files of the removed classifier."""
    names = getattr(model, "pretrained_cfg", {}).get("classifier") or ()
    names = (names,) if isinstance(names, str) else names
    return [f"{name}.{kind}" for name in names for kind in ("weight", "bias")]


def is_timm_twin(name: str, backbone: nn.Module, image_size: int) -> bool:
    """Whether timm's model `name` loads the weights of torchvision's and computes the same features.

    True for ResNets, ResNeXts, Wide ResNets, DenseNets and Inception v3. Checked by running both models
    on two random images, because versions of the libraries differ.
    """
    timm = require_timm()
    if not timm.is_model(name):
        return False
    state = backbone.state_dict()
    with torch.device("meta"):
        shapes = timm.create_model(name, num_classes=0).state_dict()
    if {k: v.shape for k, v in state.items()} != {k: v.shape for k, v in shapes.items()}:
        return False
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        twin = timm.create_model(name, num_classes=0).eval()
        images = torch.randn(2, 3, image_size, image_size)
    twin.load_state_dict(state)
    with torch.inference_mode():
        expected = backbone.eval()(images)
        difference = (twin(images) - expected).abs().max()
    return bool(difference <= _ROUNDING * expected.abs().max())
