"""A finished run → a file for other programs: its backbone, or its features of a data set."""

import io
import json
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rela.errors import ChoiceError, UnavailableError
from rela.models.preprocessing import Preprocessing
from rela.options import part_of
from rela.pipeline import Say
from rela.pipeline.files import clear_abandoned_files, replacing
from rela.pipeline.locks import in_use
from rela.priors import PriorIdentity, PriorRequest
from rela.priors.earlier_run import load_backbone, read_identity
from rela.result import Result
from rela.stages.display import human_bytes, next_command
from rela.stages.embed.embed import embed
from rela.stages.priors.find import with_names
from rela.stages.requests import Export
from rela.stages.settings import EmbedSettings, ExportSettings
from rela.stages.snippets import backbone_snippet, features_snippet, onnx_snippet, pasteable
from rela.stages.train.snapshot import run_or_snapshot
from rela.stages.workspace.run import Run
from rela.stages.workspace.workspace import Workspace

if TYPE_CHECKING:
    from torch import nn

    from rela.representations.named import NamedRepresentations

_WEIGHTS = (".pth", ".pt", ".safetensors")
_SUFFIXES = {  # the first is the default
    "torchvision": _WEIGHTS,
    "timm": (".safetensors", ".pth", ".pt"),
    "safetensors": (".safetensors",),
    "onnx": (".onnx",),
    "hdf5-features": (".h5", ".hdf5"),
}


@dataclass(frozen=True, repr=False)
class ExportResult(Result):
    """The file, its size and the Python that loads it."""

    path: Path
    run: str
    to: str
    num_bytes: int
    preprocessing: dict[str, Any]
    snippet: str
    seconds: float

    def shown(self) -> dict[str, Any]:
        """What was written where."""
        size = human_bytes(self.num_bytes)
        return {"run": self.run, "to": self.to, "size": size, "path": self.path}


def export(workspace: Workspace, request: Export, say: Say = print) -> ExportResult:
    """Write the backbone of a run, or its features, for the program that `request.to` names.

    The file is written whole or not at all. Raises ChoiceError if the format does not fit the run's
    model, listing those that do, or if the file exists and `settings.force` is not set.
    """
    start = time.perf_counter()
    run = run_or_snapshot(workspace, request.run, say)
    settings, embedding = part_of(request, ExportSettings), part_of(request, EmbedSettings)
    if settings.dataset is not None and settings.to != "hdf5-features":
        raise ChoiceError(f"--dataset requires --to hdf5-features, found {settings.to}; remove it")
    path = _destination(run.name, settings)
    identity = read_identity(run.path)
    if settings.to == "hdf5-features":
        snippet = _export_features(workspace, run, identity, path, settings, embedding, say)
    else:
        snippet = _export_backbone(run, identity, path, settings)
    return ExportResult(
        path=path,
        run=run.name,
        to=settings.to,
        num_bytes=path.stat().st_size,
        preprocessing=identity.preprocessing.as_dict(),
        snippet=snippet,
        seconds=time.perf_counter() - start,
    )


def format_result(result: ExportResult) -> str:
    """The path, the preprocessing and the code that loads the file."""
    wants = describe_preprocessing(Preprocessing.from_dict(result.preprocessing))
    what = "features" if result.to == "hdf5-features" else "backbone"
    return "\n".join(
        [
            f"{what} of run {result.run}: {result.path}, {human_bytes(result.num_bytes)}",
            f"preprocessing: {wants}",
            pasteable("load it with:", result.snippet),
            next_command("eval", result.run),
        ]
    )


def describe_preprocessing(wanted: Preprocessing) -> str:
    """In words."""
    mean, std = (", ".join(f"{x:g}" for x in values) for values in (wanted.mean, wanted.std))
    return (
        f"RGB, shorter side resized to {wanted.resize} pixels ({wanted.interpolation}, antialiased), centre "
        f"{wanted.crop}×{wanted.crop}, divided by 255, minus ({mean}), divided by ({std})"
    )


def _destination(run: str, settings: ExportSettings) -> Path:
    """The file to write; raises ChoiceError if it exists or has the suffix of another format."""
    suffixes = _SUFFIXES[settings.to]
    ending = {"safetensors": "", "onnx": "", "hdf5-features": "-features"}
    default = f"{run}{ending.get(settings.to, f'-{settings.to}')}{suffixes[0]}"
    path = Path(settings.output or default)
    if path.is_dir():
        path = path / default
    if path.suffix not in suffixes:
        raise ChoiceError(
            f"--output {path}: expected a name ending in {' or '.join(suffixes)} for --to {settings.to}"
        )
    if path.parent.is_file():
        raise ChoiceError(f"--output {path}: {path.parent} is a file; choose another folder")
    if not path.parent.is_dir():
        raise UnavailableError(
            f"{path.parent}: no such folder to write {path.name} to; create it first"
        )
    if path.exists() and not settings.force:
        raise ChoiceError(
            f"{path} already exists; choose another --output, or replace it with --force"
        )
    return path


def _writing(path: Path, settings: ExportSettings) -> Any:
    clear_abandoned_files(path.parent)
    return replacing(path, clobber=settings.force, option="--output")


def _export_backbone(
    run: Run, identity: PriorIdentity, path: Path, settings: ExportSettings
) -> str:
    model, size = identity.arch, identity.image_size
    if settings.to == "onnx":
        from rela.models.onnx_export import require_onnx

        require_onnx()
    backbone = load_backbone(run.path, identity)
    _refuse_what_does_not_fit(run, identity, backbone, settings.to)
    metadata = {**_description(run, identity), "feature_dim": identity.feature_dim}
    with _writing(path, settings) as temporary:
        if settings.to == "onnx":
            from rela.models.onnx_export import write_onnx

            write_onnx(temporary, backbone, size, metadata)
        elif path.suffix == ".safetensors":
            from rela.models.weights import save_weights

            save_weights(temporary, backbone, metadata)
        else:
            temporary.write_bytes(_pickled(backbone))
    if settings.to == "onnx":
        return onnx_snippet(path.resolve(), size)
    return backbone_snippet(model, size, path.resolve(), with_timm=settings.to == "timm")


def _refuse_what_does_not_fit(
    run: Run, identity: PriorIdentity, backbone: "nn.Module", to: str
) -> None:
    from rela.models.backbones import parse_model_name
    from rela.models.timm_models import PREFIX, is_timm_twin

    name, size = identity.arch, identity.image_size
    is_timm = name.startswith(PREFIX)
    is_small = not is_timm and parse_model_name(name).small
    if to == "torchvision" and (is_timm or is_small):
        problem, fits = "which torchvision does not have", ["timm"] if is_timm else []
    elif to == "timm" and not is_timm and (is_small or not is_timm_twin(name, backbone, size)):
        problem = "of which timm has no twin with the same tensors and the same features"
        fits = [] if is_small else ["torchvision"]
    else:
        return
    stem = " (its stem is for small images)" if is_small else ""
    fits += ["safetensors", "onnx", "hdf5-features"]
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


def _description(run: Run, identity: PriorIdentity) -> dict[str, Any]:
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


def _export_features(
    workspace: Workspace,
    run: Run,
    identity: PriorIdentity,
    path: Path,
    settings: ExportSettings,
    embedding: EmbedSettings,
    say: Say,
) -> str:
    """Features of every split by the run as a prior, embedded or from the cache."""
    from rela.representations.named import write_features

    own = settings.dataset is None
    dataset = (
        workspace.dataset_of(run.content.dataset, run.dataset_fingerprint)
        if own
        else workspace.dataset(settings.dataset)
    )
    if own and dataset.fingerprint != run.dataset_fingerprint:
        raise ChoiceError(
            f"data set {dataset.name} has changed since run {run.name} was trained on it; name one "
            "with --dataset"
        )
    request = PriorRequest(f"run:{run.name}")
    splits: dict[str, NamedRepresentations] = {}
    with ExitStack() as held:
        for split in dataset.splits:
            found = embed(workspace, dataset, request, embedding, split, say=say).artifact
            assert found is not None, "an export is never sharded"
            held.enter_context(in_use(found.path))
            splits[split] = with_names(dataset, split, found)
        attributes = {
            **_description(run, identity),
            "dataset": dataset.name,
            "dataset_fingerprint": dataset.fingerprint,
        }
        plain = {k: json.dumps(v) if isinstance(v, dict) else v for k, v in attributes.items()}
        with _writing(path, settings) as temporary:
            write_features(temporary, splits, plain)
    return features_snippet(path.resolve(), next(iter(splits)))
