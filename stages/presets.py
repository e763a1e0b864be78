"""Presets of `rela train`: the reference's input size, batch, model and epochs by data set. Light."""

from typing import Any

from rela.errors import ChoiceError

_SMALL: dict[str, Any] = {"model": "resnet18_small", "batch_size": 128, "epochs": 100}
_IMAGENET: dict[str, Any] = {
    "model": "resnet50", "image_size": 224, "batch_size": 512, "epochs": 100,
}  # fmt: skip

PRESETS: dict[str, dict[str, Any]] = {
    "cifar10": {**_SMALL, "image_size": 32},
    "cifar100": {**_SMALL, "image_size": 32},
    "tinyimagenet": {**_SMALL, "image_size": 64},
    "imagenet1k": _IMAGENET,
    "imagenet21k": _IMAGENET,
    "celebahq": {"image_size": 224, "batch_size": 128, "epochs": 100},
}
PRESET_NAMES = tuple(PRESETS)


def preset(name: str | None) -> dict[str, Any]:
    """The reference's options of `rela train` for the data set `name`; empty for None.

    Raises ChoiceError listing the known names.
    """
    if name is None:
        return {}
    if name not in PRESETS:
        raise ChoiceError(f"no preset {name!r}; choose one of {', '.join(PRESET_NAMES)}")
    return dict(PRESETS[name])
