"""`random:ARCH`: an untrained model as a prior, the control for all others."""

from typing import TYPE_CHECKING

from rela.errors import ChoiceError
from rela.priors.prior import Prior, PriorRequest, prior_with

if TYPE_CHECKING:
    from torch import nn

PREFIX, METAVAR, EXAMPLE, ABOUT = "random:", "ARCH", "random:resnet18", "untrained"
EXTRA, LITERAL = "", ""
PACKAGES: dict[str, str] = {}

# Far from every seed of a run, so that a random prior is never the student's own initial weights.
# Torch's generator on the CPU uses only the lowest 32 bits.
_FIRST_SEED = 1 << 31


def names() -> list[str]:
    """None to choose from."""
    return []


def resolve(request: PriorRequest) -> Prior:
    """The architecture at initialisation; the seed decides the weights and so the identity."""
    from rela.models.backbones import build_backbone
    from rela.models.preprocessing import preprocessing_for

    if request.weights is not None:
        raise ChoiceError(f"--weights contradicts --prior {request.name}, whose weights are random")
    arch = request.name.removeprefix(PREFIX)
    backbone = build_backbone(arch, request.image_size, seed=_FIRST_SEED + request.seed).eval()
    _open_residual_branches(backbone)
    name = f"{request.name}-seed{request.seed}"
    return prior_with(backbone, name, arch, preprocessing_for(request.image_size))


def _open_residual_branches(backbone: "nn.Module") -> None:
    """Set scales of norms that start at 0 (at the ends of residual branches, in timm) to 1.

    A scale of 0 switches its branch off: the features would depend only on the few pixels that strided
    1×1 shortcuts sample.
    """
    from torch import nn

    for module in backbone.modules():
        scale = getattr(module, "weight", None)
        if isinstance(scale, nn.Parameter) and scale.ndim == 1 and not scale.any():
            nn.init.ones_(scale)
