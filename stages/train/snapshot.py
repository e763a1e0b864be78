"""The last checkpoint of an unfinished run → a run of its own, NAME@STEP, to evaluate and export."""

import json
import shlex
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rela.errors import ChoiceError
from rela.models.own_code.networks import said_of_code
from rela.pipeline import Say
from rela.pipeline.artifact import cached
from rela.pipeline.files import write_atomic
from rela.pipeline.fingerprint import fingerprint
from rela.pipeline.manifest import Manifest, provenance
from rela.pipeline.spent import Spent
from rela.stages.priors.find import shown_name
from rela.stages.workspace.dataset import DataSet
from rela.stages.workspace.run import COST_FILE, Config, Run, cost_of, read_config, train_words
from rela.stages.workspace.workspace import Workspace, open_as
from rela.training.run_directory import CHECKPOINTS_DIR, METRICS_FILE, keep_epochs, last_record
from rela.training.settings import ResolvedSettings


def run_or_snapshot(workspace: Workspace, name: str | None, say: Say) -> Run:
    """The finished run `name` (the only one), or the last checkpoint of an unfinished one.

    Raises ChoiceError if there is neither.
    """
    unfinished = {path.name: path for path in workspace.unfinished_runs()}
    if name is None and len(unfinished) == 1 and not workspace.runs():
        (name,) = unfinished
    if name is None or name not in unfinished:
        return workspace.run(name)
    return _snapshot(workspace, unfinished[name], say)


def changed_since(workspace: Workspace, dataset: DataSet, config: Config, name: str) -> ChoiceError:
    """The error for an unfinished run whose data set has other images by now, with the command for them."""
    made = (a for a in workspace.representations() if a.fingerprint == config.settings.prior)
    prior = next(map(shown_name, made), "none")
    words = train_words(dataset.name, prior, replace(config.settings, maps=None))
    return ChoiceError(
        f"data set {dataset.name} has changed since run {name} began; start a new run, `{shlex.join(words)}`"
    )


def _snapshot(workspace: Workspace, directory: Path, say: Say) -> Run:
    from rela.training.checkpoints import newest_checkpoint

    config = read_config(directory)
    dataset = workspace.dataset_of(config.dataset.name, config.dataset.fingerprint)
    if dataset.fingerprint != config.dataset.fingerprint:
        raise changed_since(workspace, dataset, config, directory.name)
    found = newest_checkpoint(directory / CHECKPOINTS_DIR, say)
    if found is None:
        raise ChoiceError(f"run {directory.name} has no checkpoint yet; wait for its first one")
    checkpoint, record = found
    key = fingerprint({"stage": "snapshot", "run": config.fingerprint, "sha256": record["sha256"]})
    destination = workspace.runs_dir / f"{directory.name}@{record['step']}"

    def fill(staged: Path) -> Manifest:
        return _write(workspace, directory, config, dataset, checkpoint, record, key, staged)

    run, _ = cached(destination, Run, lambda: open_as(Run, destination), fill)
    say(
        f"run {directory.name} is not finished: using its last checkpoint, after step {record['step']} and "
        f"{record['epochs_done']} of {config.settings.epochs} epochs, as run {run.name}"
    )
    return run


def _write(
    workspace: Workspace,
    directory: Path,
    config: Config,
    dataset: DataSet,
    checkpoint: Path,
    record: dict[str, Any],
    key: str,
    staged: Path,
) -> Manifest:
    """Fill the staged directory with all that a finished run has, but checkpoints."""
    import torch

    from rela.data.sampling import num_chosen
    from rela.models.weights import load_strict
    from rela.training.run import build_method, export_backbone

    start = Spent.now()
    settings = ResolvedSettings(**{**vars(config.settings), "precision": config.precision})
    num_images = dataset.num_images("train")
    num_classes = len(dataset.content.class_names)
    method = build_method(settings, num_chosen(num_images, settings.data_ratio), num_classes)
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    prefix = "method."
    weights = {
        k.removeprefix(prefix): v for k, v in state["state_dict"].items() if k.startswith(prefix)
    }
    load_strict(method, weights, [], str(checkpoint))
    export_backbone(staged, settings, method, f"{directory.name}@{record['step']}")
    config.write(staged)
    metrics = staged / METRICS_FILE
    metrics.touch()
    if (directory / METRICS_FILE).is_file():
        shutil.copyfile(directory / METRICS_FILE, metrics)
        keep_epochs(metrics, record["epochs_done"])
    prior = next(
        (a for a in workspace.representations() if a.fingerprint == config.settings.prior), None
    )
    costs = cost_of(dataset, prior, None, record["seconds"], record.get("cpu_seconds"), 1)
    write_atomic(staged / COST_FILE, json.dumps(costs, indent=1).encode())
    last = last_record(metrics)
    return Manifest(
        kind="run",
        fingerprint=key,
        inputs={"dataset": dataset.fingerprint, "images": dataset.images_sha256()},
        parameters=asdict(config.settings),
        content={
            "dataset": dataset.name,
            "num_images": num_images,
            "prior": (prior and shown_name(prior)) or config.representations,
            "handover_step": state["rela"]["handover_step"],
            "num_steps": record["step"],
            "final_loss": last.get("loss"),
            "online_accuracy": last.get("online_accuracy"),
            "snapshot_of": directory.name,
            "epochs_done": record["epochs_done"],
        },
        provenance=provenance(Spent.now() - start, ["rela", "eval", directory.name])
        | said_of_code(settings.model),
    )
