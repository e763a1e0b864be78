"""What a run cost, everything counted: the seconds of every phase, and images that were looked at."""

from pathlib import Path
from typing import Any

from pipeline.artifact import Artifact
from stages.run_files import COST_FILE, read_json

_COST_FORM = {"seconds": {...: float}, "total_seconds": float}


def cost_of(
    dataset: Artifact,
    representations: Artifact | None,
    targets: Artifact | None,
    train_seconds: dict[str, float],
    num_devices: int,
) -> dict[str, Any]:
    """The whole ledger of a run; artifacts that were there count as they did when they were made."""
    seconds = {"convert": dataset.manifest.provenance["seconds"]}
    if representations is not None and targets is not None:
        seconds |= _representations_seconds(representations)
        seconds["targets"] = targets.manifest.provenance["seconds"]
    seconds |= {phase: round(value, 4) for phase, value in train_seconds.items()}
    on_device = sum(seconds.get(phase, 0.0) for phase in ("embed", "stage1", "stage2", "data_wait"))
    return {
        "seconds": seconds,
        "total_seconds": round(sum(seconds.values()), 4),
        "device_seconds": round(num_devices * on_device, 4),
        "num_devices": num_devices,
    }


def seconds_by_phase(directory: Path) -> dict[str, float]:
    """The ledger of the run in `directory`; empty if it is not there, or damaged."""
    found: dict[str, float] = read_json(directory / COST_FILE, _COST_FORM).get("seconds", {})
    return found


def total_seconds(directory: Path) -> float | None:
    """The sum of the ledger; None if it is not there, or damaged."""
    found: float | None = read_json(directory / COST_FILE, _COST_FORM).get("total_seconds")
    return found


def num_images_embedded(run: Artifact) -> int:
    """Images that the prior looked at: every one, once or once for each of its crops."""
    if run.manifest.content["prior"] is None:
        return 0
    crops = run.manifest.parameters["crops"] or 0
    return int(run.manifest.content.get("num_images", 0)) * max(1, crops)


def num_images_seen(run: Artifact) -> int:
    """By training, and by the prior when it embedded them."""
    in_training = run.manifest.content["num_steps"] * run.manifest.parameters["batch_size"]
    return int(in_training) + num_images_embedded(run)


def _representations_seconds(representations: Artifact) -> dict[str, float]:
    """Embedding, and where several priors were combined (stages.combine), every one's and the join."""
    known = representations.manifest.provenance
    if "components_seconds" not in known:
        return {"embed": known["seconds"]}
    return {"embed": round(sum(known["components_seconds"]), 4), "combine": known["seconds"]}
