"""Which architecture the weights in a file fit, where they do not fit the one that was named.

torchvision and timm build one model under different names: Swin Transformers of its authors load into
timm's, not into torchvision's. Nothing is loaded here.
"""

from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from rela.priors import timm, torchvision
from rela.priors.prior import PriorRequest

_NUM_TRIED = 8


def fitting_architecture(request: PriorRequest, path: Path) -> str | None:
    """The architecture of a name like that of the file, or the requested one, that the file fits, if any."""
    from rela.models.similar_names import similar_names

    known = [name for kind in (torchvision, timm) for name in kind.names() if "." not in name]
    known = [name for name in known if name != request.name]
    bare = request.name.removeprefix(timm.PREFIX)
    tried = [*similar_names(path.stem, known), *similar_names(bare, known, _NUM_TRIED)]
    fitting = [name for name in dict.fromkeys(tried) if _fits(name, path, request)]

    def alike(name: str) -> float:
        name = name.removeprefix(timm.PREFIX)
        return sum(SequenceMatcher(None, name, other).ratio() for other in (path.stem, bare))

    return max(fitting, key=alike, default=None)


def _fits(name: str, path: Path, request: PriorRequest) -> bool:
    """Whether every tensor of the architecture, built without memory, is in the file."""
    import torch

    from rela.models.backbones import assemble_backbone
    from rela.models.foreign_checkpoints import find_encoder

    try:
        with torch.device("meta"):
            backbone, classifier = assemble_backbone(name, _usual_size(name), seed=0)
        encoder = find_encoder(backbone, path, classifier, which=request.encoder)
    except Exception:  # whatever keeps it from being built or read
        return False
    return encoder.complete and not encoder.unexpected


def _usual_size(name: str) -> int:
    if not name.startswith(timm.PREFIX):
        return 224
    import timm as library

    config: Any = library.get_pretrained_cfg(name.removeprefix(timm.PREFIX))
    return int(config.input_size[1])
