"""The backbone of a run → a file of weights, or ONNX."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rela.errors import ChoiceError
from rela.models.preprocessing import Preprocessing
from rela.pipeline.manifest import Manifest
from rela.priors import PriorIdentity
from rela.priors.earlier_run import load_backbone
from rela.stages.export.destination import KIND, num_bytes_of, writing
from rela.stages.settings import FEATURE_FORMATS, ExportSettings
from rela.stages.snippets import backbone_snippet, onnx_snippet
from rela.stages.workspace.run import Run

if TYPE_CHECKING:
    from torch import nn


def export_weights(
    run: Run, identity: PriorIdentity, path: Path, settings: ExportSettings
) -> tuple[str, int]:
    """Write the backbone; returns the Python that loads it, and the size in bytes.

    Raises ChoiceError, with those that fit, if the format does not fit the model.
    """
    model, size = identity.arch, identity.image_size
    if settings.to == "onnx":
        from rela.models.onnx_export import require_onnx

        require_onnx()
    backbone = load_backbone(run.path, identity)
    _refuse_what_does_not_fit(run, identity, backbone, settings.to)
    metadata = {**description_of(run, identity), "feature_dim": identity.feature_dim}
    with writing(path, settings, Manifest(KIND, "")) as temporary:
        if settings.to == "onnx":
            from rela.models.onnx_export import write_onnx

            write_onnx(temporary, backbone, size, metadata)
        elif path.suffix == ".safetensors":
            from rela.models.weights import save_weights

            save_weights(temporary, backbone, metadata)
        else:
            temporary.write_bytes(_pickled(backbone))
        num_bytes = num_bytes_of(temporary)
    if settings.to == "onnx":
        return onnx_snippet(path.resolve(), size), num_bytes
    with_timm = settings.to == "timm"
    return backbone_snippet(model, size, path.resolve(), with_timm=with_timm), num_bytes


def _refuse_what_does_not_fit(
    run: Run, identity: PriorIdentity, backbone: "nn.Module", to: str
) -> None:
    from rela.models.backbones import parse_model_name
    from rela.models.own_code.networks import is_own
    from rela.models.timm_models import PREFIX, is_timm_twin

    name, size = identity.arch, identity.image_size
    is_timm = name.startswith(PREFIX)
    is_small = not is_timm and not is_own(name) and parse_model_name(name).small
    if to == "torchvision" and (is_timm or is_small or is_own(name)):
        problem, fits = "which torchvision does not have", ["timm"] if is_timm else []
    elif to == "timm" and is_own(name):
        problem, fits = "which timm does not have", []
    elif to == "timm" and not is_timm and (is_small or not is_timm_twin(name, backbone, size)):
        problem = "of which timm has no twin with the same tensors and the same features"
        fits = [] if is_small else ["torchvision"]
    else:
        return
    stem = " (its stem is for small images)" if is_small else ""
    fits += ["safetensors", "onnx", *FEATURE_FORMATS]
    raise ChoiceError(
        f"run {run.name} trained {name}{stem}, {problem}; supported: --to {', '.join(fits)}"
    )


def _pickled(backbone: "nn.Module") -> bytes:
    """A state dict as torch.save writes it."""
    import torch

    state = {k: v.detach().cpu().contiguous() for k, v in backbone.state_dict().items()}
    content = io.BytesIO()
    torch.save(state, content)
    return content.getvalue()


def description_of(run: Run, identity: PriorIdentity) -> dict[str, Any]:
    """Metadata of the weights."""
    return {
        "run": run.name,
        "arch": identity.arch,
        "image_size": identity.image_size,
        "weights_sha256": identity.weights_sha256,
        "preprocessing": identity.preprocessing.as_dict(),
        "preprocessing_in_words": describe_preprocessing(identity.preprocessing),
        "trained_on": run.content.dataset,
    }


def describe_preprocessing(wanted: Preprocessing) -> str:
    """In words."""
    mean, std = (", ".join(f"{x:g}" for x in values) for values in (wanted.mean, wanted.std))
    return (
        f"RGB, shorter side resized to {wanted.resize} pixels ({wanted.interpolation}, antialiased), centre "
        f"{wanted.crop}×{wanted.crop}, divided by 255, minus ({mean}), divided by ({std})"
    )
