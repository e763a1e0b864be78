"""A run or a prior × a labelled data set → accuracies of its frozen features."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.artifact import Artifact
from pipeline.atomic import write_atomic
from pipeline.fingerprint import fingerprint
from rela.errors import ChoiceError
from rela.priors import POOLED, PriorRequest
from rela.probes.protocols import KNN_PROTOCOLS, LINEAR_PROTOCOLS
from stages.convert import beton_path
from stages.embed import REPRESENTATIONS_FILE, embed, prior_of
from stages.settings import EmbedSettings
from stages.tables import format_table
from stages.workspace import Workspace

STAGE_VERSION = 1
EVALUATION_FILE = "eval.json"


@dataclass(frozen=True)
class Evaluation:
    """What `eval.json` holds: accuracies in [0, 1] by protocol, and what was evaluated."""

    path: Path
    results: dict[str, Any]
    cached: bool


def evaluate_run(
    workspace: Workspace,
    run: Artifact,
    dataset_name: str | None = None,
    seed: int = 0,
    settings: EmbedSettings | None = None,
    say: Callable[[str], None] = print,
) -> Evaluation:
    """Evaluate a finished run on a data set: the one it was trained on, unless another is named."""
    dataset = workspace.dataset(dataset_name or run.manifest.content["dataset"])
    own = dataset.fingerprint == run.manifest.inputs["dataset"]
    name = EVALUATION_FILE if own else f"eval-{dataset.name}.json"
    request = PriorRequest(f"run:{run.name}")
    return _evaluate(workspace, dataset, request, run.path / name, seed, settings, say)


def evaluate_prior(
    workspace: Workspace,
    dataset: Artifact,
    request: PriorRequest,
    seed: int = 0,
    settings: EmbedSettings | None = None,
    say: Callable[[str], None] = print,
) -> Evaluation:
    """Evaluate a prior on a data set, as a yardstick for the runs that learn from it."""
    return _evaluate(workspace, dataset, request, None, seed, settings, say)


def format_result(evaluation: Evaluation) -> str:
    """A table: protocol, top-1 and top-5 in percent, and how it was measured."""
    described = {p.name: p.describe() for p in (*KNN_PROTOCOLS, *LINEAR_PROTOCOLS)}

    def percent(value: float | None) -> str | None:
        return None if value is None else f"{100 * value:.2f}"

    results = evaluation.results
    rows = [
        [name, percent(found["top1"]), percent(found.get("top5")), described[name]]
        for name, found in results["accuracies"].items()
    ]
    table = format_table(["protocol", "top-1 %", "top-5 %", "how"], rows)
    title = f"{results['evaluated']} on data set {results['dataset']}"
    return f"{title}\n{table}\nwritten to {evaluation.path}"


def _evaluate(
    workspace: Workspace,
    dataset: Artifact,
    request: PriorRequest,
    path: Path | None,
    seed: int,
    settings: EmbedSettings | None,
    say: Callable[[str], None],
) -> Evaluation:
    if not dataset.manifest.content["labelled"]:
        raise ChoiceError(f"data set {dataset.name} has no labels; evaluation needs class folders")
    beton_path(dataset, "val")
    start = time.perf_counter()
    representations = {}
    for split in ("train", "val"):
        result = embed(workspace, dataset, request, settings, split, say=say)
        assert result.artifact is not None, "an evaluation is never sharded"
        representations[split] = result.artifact
    identity = prior_of(representations["train"])
    key = fingerprint(
        {
            "stage": "evaluate",
            "version": STAGE_VERSION,
            "representations": [representations[s].fingerprint for s in ("train", "val")],
            "dataset": dataset.fingerprint,
            "protocols": _protocols(),
            "seed": seed,
        }
    )
    if path is None:
        path = workspace.evaluations_dir / f"{dataset.name}-{key[:12]}.json"
    cached = _read(path)
    if cached is not None and cached["fingerprint"] == key:
        return Evaluation(path, cached, True)
    results = {
        "fingerprint": key,
        "evaluated": request.name + ("" if request.layer == POOLED else f"+{request.layer}"),
        "dataset": dataset.name,
        "identity": identity.as_dict(),
        "protocols": _protocols(),
        "seed": seed,
        "accuracies": _accuracies(dataset, representations, seed),
        "seconds": round(time.perf_counter() - start, 4),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, json.dumps(results, indent=1).encode())
    return Evaluation(path, results, False)


def _accuracies(
    dataset: Artifact,
    representations: dict[str, Artifact],
    seed: int,
) -> dict[str, Any]:
    import numpy as np
    import torch

    from rela.beton import open_beton
    from rela.probes.knn import knn_accuracy
    from rela.probes.linear import linear_probe
    from rela.representations import open_matrix

    device = "cuda" if torch.cuda.is_available() else "cpu"
    arrays = []
    for split in ("train", "val"):
        matrix = open_matrix(representations[split].path / REPRESENTATIONS_FILE)
        arrays.append(torch.from_numpy(matrix.values.astype(np.float32)).to(device))
        arrays.append(torch.from_numpy(open_beton(beton_path(dataset, split)).labels).to(device))
    features = (arrays[0], arrays[1], arrays[2], arrays[3])
    num_classes = len(dataset.manifest.content["class_names"])
    accuracies: dict[str, Any] = {}
    for knn in KNN_PROTOCOLS:
        accuracies[knn.name] = {"top1": knn_accuracy(*features, num_classes, knn)}
    for linear in LINEAR_PROTOCOLS:
        accuracies[linear.name] = linear_probe(*features, num_classes, linear, seed)
    return accuracies


def _protocols() -> dict[str, Any]:
    """Every setting by which the accuracies were measured, spelled out."""
    return {p.name: asdict(p) for p in (*KNN_PROTOCOLS, *LINEAR_PROTOCOLS)}


def _read(path: Path) -> dict[str, Any] | None:
    try:
        results: dict[str, Any] = json.loads(path.read_bytes())
        return results if "fingerprint" in results and "accuracies" in results else None
    except (OSError, ValueError, TypeError):
        return None
