"""`timm:NAME` → backbones from timm (extra `timm`): its models without their classifier."""

import difflib
from typing import Any

from torch import nn

from rela.errors import ChoiceError

PREFIX = "timm:"


def require_timm() -> Any:
    """The package; raises ChoiceError with the command that installs it."""
    try:
        import timm
        import timm.data
    except ImportError as error:
        raise ChoiceError(
            f"{PREFIX}NAME needs timm; install it with `pip install 'rela[timm]'`"
        ) from error
    return timm


def check_timm_name(name: str) -> str:
    """`timm:NAME` or `timm:NAME.TAG` → what timm calls it; raises ChoiceError with close names."""
    timm, bare = require_timm(), name.removeprefix(PREFIX)
    if timm.is_model(bare):
        if "." not in bare or bare in timm.list_pretrained(f"{bare.split('.')[0]}.*"):
            return bare
        close = timm.list_pretrained(f"{bare.split('.')[0]}.*")
    else:
        close = difflib.get_close_matches(bare, [*timm.list_models(), *timm.list_pretrained()], n=4)
    known = ", ".join(PREFIX + n for n in close) or f"for example {PREFIX}resnet18.a1_in1k"
    raise ChoiceError(f"no model {name!r}; did you mean {known}?")


def create_timm_model(name: str, image_size: int) -> tuple[nn.Module, dict[str, Any]]:
    """A model for images of `image_size` pixels without classifier, and the options that made it.

    Models with position embeddings are built for this size, and for any other where they can.
    """
    timm, bare = require_timm(), check_timm_name(name)
    sized = {"img_size": image_size}
    for options in ({**sized, "dynamic_img_size": True}, sized, {}):
        try:
            return timm.create_model(bare, num_classes=0, **options), options
        except TypeError:  # an option that this class does not have
            if not options:
                raise
        except (AssertionError, RuntimeError, ValueError) as error:
            raise ChoiceError(
                f"{name} cannot be built for images of {image_size} pixels ({error}); choose "
                "another --image-size"
            ) from error
    raise AssertionError("the last options are none")


def timm_classifier_keys(model: nn.Module) -> list[str]:
    """The names that the parameters of the removed classifier have in files."""
    names = getattr(model, "pretrained_cfg", {}).get("classifier") or ()
    names = (names,) if isinstance(names, str) else names
    return [f"{name}.{kind}" for name in names for kind in ("weight", "bias")]
