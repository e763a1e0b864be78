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
from rela.stages.workspace.representations import REPRESENTATIONS_FILE, Representations, Targets
from rela.stages.workspace.workspace import Workspace, open_as

STAGE_VERSION = 2
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
        from rela.representations.matrix_file import open_matrix
        from rela.representations.targets import write_targets

        start = Spent.now()
        matrix = open_matrix(representations.sound_file(REPRESENTATIONS_FILE), verify=False)
        projection = fit_projection(matrix.values, width, variance_share=variance_share)
        if projection.num_dropped:
            say(
                f"targets have {projection.width} components: {projection.num_dropped} more would be "
                f"noise, with less than {EIGENVALUE_FLOOR:g} of the largest variance"
            )
        if variance_share is not None:
            share = projection.explained_variance
            say(f"targets: {projection.width} components with {100 * share:.0f} % of the variance")
        attributes = {"representations_fingerprint": representations.fingerprint, "width": width}
        write_targets(directory / TARGETS_FILE, matrix.values, projection, attributes, matrix.crops)
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


def _save_projection(path: Path, projection: Projection) -> None:
    from safetensors.numpy import save

    tensors = {
        "mean": projection.mean,
        "components": projection.components,
        "scale": projection.scale,
        "eigenvalues": projection.eigenvalues.copy(),
    }
    path.write_bytes(save(tensors))  # from here, so that a full disk is an OSError
