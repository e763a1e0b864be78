"""Representations → targets of one width, computed once for all runs."""

from collections.abc import Callable
from pathlib import Path

from rela.pipeline.artifact import cached
from rela.pipeline.fingerprint import fingerprint
from rela.pipeline.manifest import Manifest, provenance
from rela.pipeline.spent import Spent
from rela.representations.projection import (
    EIGENVALUE_FLOOR,
    LEAST_WIDTH,
    Projection,
    fit_projection,
)
from rela.stages.workspace.representations import Representations, Targets
from rela.stages.workspace.workspace import Workspace, open_as

STAGE_VERSION = 3
TARGETS_FILE, PROJECTION_FILE = "targets.h5", "projection.safetensors"


def make_targets(
    workspace: Workspace,
    representations: Representations,
    width: int,
    variance_share: float | None = None,
    say: Callable[[str], None] = print,
) -> Targets:
    """PCA to at most `width` components, standardised, as an artifact; reused if it exists.

    `variance_share` as in rela.representations.projection.fit_projection.
    """
    leading = {"variance_share": variance_share, "least_width": LEAST_WIDTH}
    leading = {} if variance_share is None else leading
    meaning = {
        "stage": "targets",
        "version": STAGE_VERSION,
        "representations": representations.fingerprint,
        "width": width,
        "eigenvalue_floor": EIGENVALUE_FLOOR,
        **leading,
    }
    key = fingerprint(meaning)
    at_most = "" if variance_share is None else "max"
    destination = workspace.targets_dir / f"{representations.name}-d{at_most}{width}-{key[:8]}"

    def fill(directory: Path) -> Manifest:
        from rela.representations.embedder import choose_device
        from rela.representations.targets import write_targets

        start = Spent.now()
        matrix = representations.matrix()
        device = str(choose_device("auto"))
        projection = fit_projection(
            matrix.values, width, variance_share=variance_share, device=device
        )
        say(_in_words(projection, width, len(matrix.values[0])))
        attributes = {"representations_fingerprint": representations.fingerprint, "width": width}
        write_targets(
            directory / TARGETS_FILE, matrix.values, projection, attributes, matrix.crops, device
        )
        _save_projection(directory / PROJECTION_FILE, projection)
        return Manifest(
            kind="targets",
            fingerprint=key,
            inputs={
                "representations": representations.fingerprint,
                "images": representations.images_sha256,
            },
            parameters={"width": width, "eigenvalue_floor": EIGENVALUE_FLOOR, **leading},
            content={
                "shape": [len(matrix.values), projection.width],
                "num_dropped": projection.num_dropped,
                "explained_variance": projection.explained_variance,
            },
            provenance=provenance(Spent.now() - start),
        )

    return cached(destination, Targets, lambda: open_as(Targets, destination), fill)[0]


def _in_words(projection: Projection, width: int, num_features: int) -> str:
    """How many components, why so many, and their share of the variance."""
    found = projection.width
    why = ""
    if found == width < num_features:
        why = " (as many as the model has features, or as --target-width allows)"
    elif found + projection.num_dropped == min(width, num_features) and projection.num_dropped:
        why = (
            f" ({projection.num_dropped} more are noise, below {EIGENVALUE_FLOOR:g} of the largest)"
        )
    elif found == LEAST_WIDTH:
        why = " (the fewest that are kept)"
    share = 100 * projection.explained_variance
    return f"targets: {found} components{why} with {share:.0f} % of the prior's variance"


def _save_projection(path: Path, projection: Projection) -> None:
    from safetensors.numpy import save

    tensors = {
        "mean": projection.mean,
        "components": projection.components,
        "scale": projection.scale,
        "eigenvalues": projection.eigenvalues.copy(),
    }
    path.write_bytes(save(tensors))  # from here, so that a full disk is an OSError
