"""Names of tensors in published files → names of a backbone.

Libraries convert the files of others with filters of their own: they rename tensors, interpolate position
embeddings for another image size, and convert classes of layers. These filters are used here; only what
none of them does is renamed by us.
"""

import contextlib
import io
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from inspect import signature
from math import isqrt
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

State = dict[str, Tensor]

# Modules around a module: DataParallel, torch.compile, FSDP, activation checkpointing, Lightning.
_WRAPPER = (
    r"(?:module|_orig_mod|_fsdp_wrapped_module|_fpw_module|_checkpoint_wrapped_module|"
    r"_forward_module)\."
)
_POSITIONS = ("pos_embed", "pos_embedding", "positional_embedding")


def without_inner_wrappers(tensors: State, backbone: nn.Module) -> State:
    """`layer1._orig_mod.0.weight` → `layer1.0.weight`; wrappers before the first other part stay.

    Nothing changes if two names would become one, or if the backbone itself has such a name.
    """
    if any(re.search(rf"(?:^|\.){_WRAPPER}", name) for name in backbone.state_dict()):
        return tensors
    names = {}
    for key in tensors:
        first = re.match(f"(?:{_WRAPPER})*", key).end()  # type: ignore[union-attr]  # it may be empty
        names[key] = key[:first] + re.sub(rf"(?<=\.)(?:{_WRAPPER})+", "", key[first:])
    if len(set(names.values())) < len(names):
        return tensors
    return {names[key]: value for key, value in tensors.items()}


def adapted(tensors: State, backbone: nn.Module) -> Iterator[State]:
    """The tensors under the names that the backbone may have for them, the plainest reading first.

    Each renaming is tried by itself and with the library's filter after it. Readings that fail are left
    out: the names and shapes of a file may be anything.
    """
    for rename in (_as_they_are, _numbered_children, _without_chunks, _efficientnet_pytorch):
        renamed = rename(tensors, backbone)
        if renamed is None:
            continue
        yield renamed
        # a tensor that claims more than its storage would be written out by a filter
        if not all(map(_is_stored, renamed.values())):
            continue
        filtered = None
        with contextlib.suppress(Exception), _silence(), torch.no_grad():
            filtered = _library_filter(backbone)(dict(renamed))
        if filtered is not None:
            yield filtered


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Some filters print, or warn of what they do themselves."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):
        yield


def position_grid(tensors: State, num_other: int) -> int | None:
    """Side of the grid of position embeddings in a file, without `num_other` tokens or a class token."""
    for key, value in tensors.items():
        if key.rpartition(".")[2] in _POSITIONS and value.ndim in (2, 3):
            for rest in (value.shape[-2] - n for n in (num_other, 1, 0)):
                if rest > 0 and isqrt(rest) ** 2 == rest:
                    return isqrt(rest)
    return None


def _is_stored(tensor: Tensor) -> bool:
    try:
        return tensor.nbytes <= tensor.untyped_storage().nbytes()
    except (RuntimeError, NotImplementedError):  # sparse, or of another kind without one storage
        return False


def _as_they_are(tensors: State, backbone: nn.Module) -> State | None:
    return tensors


def _numbered_children(tensors: State, backbone: nn.Module) -> State | None:
    """Names of `nn.Sequential(*backbone.children())`."""
    if not any(key.startswith("0.") for key in tensors):
        return None
    children = {str(i): name for i, (name, _) in enumerate(backbone.named_children())}
    parts = {key: key.partition(".") for key in tensors}
    return {
        f"{children[first]}.{rest}" if first in children else key: tensors[key]
        for key, (first, _, rest) in parts.items()
    }


def _without_chunks(tensors: State, backbone: nn.Module) -> State | None:
    """DINOv2's training stores block 7 as `blocks.1.7.…`, in chunks for FSDP."""
    chunked = re.compile(r"^blocks\.\d+\.(?=\d+\.)")
    if not any(map(chunked.match, tensors)) or not isinstance(
        getattr(backbone, "blocks", None), nn.Module
    ):
        return None
    return {chunked.sub("blocks.", key): value for key, value in tensors.items()}


_EFFICIENTNET_TOP = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_SQUEEZE = {
    "_se_reduce": "se.conv_reduce",
    "_se_expand": "se.conv_expand",
    "_depthwise_conv": "conv_dw",
}
_EXPANDING = {
    **_SQUEEZE, "_expand_conv": "conv_pw", "_bn0": "bn1", "_bn1": "bn2", "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}  # fmt: skip
_NOT_EXPANDING = {**_SQUEEZE, "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}


def _efficientnet_pytorch(tensors: State, backbone: nn.Module) -> State | None:
    """efficientnet_pytorch's names → timm's: it numbers blocks throughout, timm within stages."""
    stages = getattr(backbone, "blocks", None)
    if "_conv_stem.weight" not in tensors or not isinstance(stages, nn.Sequential):
        return None
    blocks = [f"blocks.{i}.{j}" for i, s in enumerate(stages) for j, _ in s.named_children()]
    places = {str(number): place for number, place in enumerate(blocks)}
    expands = {key.split(".")[1] for key in tensors if "._expand_conv." in key}
    renamed = {}
    for key, value in tensors.items():
        first, _, rest = key.partition(".")
        if first == "_blocks":
            number, part, rest = (*rest.split(".", 2), "", "")[:3]
            names = _EXPANDING if number in expands else _NOT_EXPANDING
            first = f"{places.get(number, first)}.{names.get(part, part)}"
        renamed[f"{_EFFICIENTNET_TOP.get(first, first)}.{rest}"] = value
    return renamed


def _library_filter(backbone: nn.Module) -> Callable[[State], State]:
    """What the library that built the model does to the files that it loads."""
    package = type(backbone).__module__.partition(".")[0]
    filters = {"timm": _by_timm, "torchvision": _by_torchvision, "open_clip": _by_open_clip}
    convert: Any = filters.get(package, _as_they_are)
    return lambda state: convert(state, backbone)


def _by_timm(state: State, backbone: Any) -> State:
    """`checkpoint_filter_fn` of the module that defines the architecture."""
    from timm.models import model_entrypoint

    defining = sys.modules[model_entrypoint(backbone.pretrained_cfg["architecture"]).__module__]
    convert: Any = getattr(defining, "checkpoint_filter_fn", None)
    if convert is None:
        return state
    # DeiT III's files, by timm's own option; of no effect on others
    with_option = "adapt_layer_scale" in signature(convert).parameters
    options = {"adapt_layer_scale": True} if with_option else {}
    return convert(state, backbone, **options)  # type: ignore[no-any-return]


def _by_torchvision(state: State, backbone: Any) -> State:
    """DenseNet's names from before 2018, `norm.1` for `norm1`, and the grid of vision transformers."""
    from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

    old = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.(?=[12]\.)")
    state = {old.sub(r"\1", key): value for key, value in state.items()}
    if isinstance(backbone, VisionTransformer):
        size, patch = backbone.image_size, backbone.patch_size
        return interpolate_embeddings(size, patch, state)  # type: ignore
    return state


def _by_open_clip(state: State, backbone: Any) -> State:
    """The grid of position embeddings; open_clip's function takes a whole model."""
    from open_clip.model import resize_pos_embed

    whole = {f"visual.{key}": value for key, value in state.items()}
    resize_pos_embed(whole, SimpleNamespace(visual=backbone))
    return {key.removeprefix("visual."): value for key, value in whole.items()}
