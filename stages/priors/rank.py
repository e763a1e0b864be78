"""Ranking of the priors embedded for one data set, in seconds and without training."""

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rela.errors import ChoiceError, DataError
from rela.evaluation.protocols import KNN_PROTOCOLS
from rela.options import part_of
from rela.pipeline.locks import in_use
from rela.pipeline.manifest import remedy
from rela.priors.names import shown_names
from rela.result import Result, Table
from rela.stages.display import format_table, next_command
from rela.stages.priors.suggested import suggested_embedding
from rela.stages.requests import Rank
from rela.stages.settings import RankSettings
from rela.stages.workspace.dataset import DataSet
from rela.stages.workspace.representations import Representations
from rela.stages.workspace.workspace import Workspace

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_PROTOCOL = KNN_PROTOCOLS[0]
_HELD_OUT_SHARE = 5  # one row in five is held out


@dataclass(frozen=True)
class RankedPrior:
    """One representation and its figures (rela.representations.quality).

    `knn` is a k-NN accuracy in [0, 1], None without labels; `own_run`: the prior, or a component of it,
    was trained on the same images.
    """

    prior: str
    representations: str
    width: int
    effective_rank: float
    uniformity: float
    knn: float | None
    own_run: bool


@dataclass(frozen=True, repr=False)
class Ranking(Result):
    """Priors, best first; `cka[i][j]` is the linear CKA of the i-th and the j-th.

    `convert`: the command that makes a data set to train on, if this one has only the names of its images.
    """

    dataset: str
    num_images: int
    num_rows: int
    num_held_out: int
    sorted_by: str
    priors: list[RankedPrior]
    cka: list[list[float]]
    convert: str | None = None

    @property
    def names(self) -> list[str]:
        """A name for each prior; that of its representations if two share a name."""
        names = [ranked.prior for ranked in self.priors]
        return names if len(set(names)) == len(names) else [r.representations for r in self.priors]

    def shown(self) -> dict[str, Any]:
        """The best prior, and by which measure."""
        return {
            "data set": self.dataset,
            "best": self.names[0],
            "by": self.sorted_by,
            "images": f"{self.num_rows:,} of {self.num_images:,}",
        }

    def tables(self) -> dict[str, Table]:
        """The measures, best prior first, and the similarity of the priors."""
        measures = [
            [
                f"{number} {name}{' *' if ranked.own_run else ''}",
                ranked.width,
                None if ranked.knn is None else f"{100 * ranked.knn:5.1f} %",
                f"{ranked.effective_rank:8.1f}",
                f"{ranked.uniformity:.2f}",
            ]
            for number, (name, ranked) in enumerate(
                zip(self.names, self.priors, strict=True), start=1
            )
        ]
        similarities = [
            [f"{number} {name}", *(f"{value:.2f}" for value in row)]
            for number, (name, row) in enumerate(zip(self.names, self.cka, strict=True), start=1)
        ]
        header = ["prior", "width", f"{_PROTOCOL.k}-NN", "effective rank", "uniformity"]
        numbers = [str(number) for number in range(1, len(self.names) + 1)]
        found: dict[str, Table] = {"measures": (header, measures)}
        if len(numbers) > 1:
            found["similarity (linear CKA)"] = (["", *numbers], similarities)
        return found


def rank(workspace: Workspace, request: Rank) -> Ranking:
    """Compare every embedded prior of the training images on the same rows.

    By k-NN accuracy with labels, else by effective rank. Digests of whole files are not checked here but
    in training. Raises ChoiceError if nothing is embedded.
    """
    dataset, settings = workspace.dataset(request.dataset), part_of(request, RankSettings)
    images = dataset.images_sha256()
    every = workspace.representations(images)
    cached = [a for a in every if not a.content.crops]
    if not cached:
        why = " (random crops are not ranked)" if every else ""
        raise ChoiceError(
            f"no prior has been embedded for data set {dataset.name}{why}; run "
            f"`{suggested_embedding(dataset)}` first"
        )
    import numpy as np

    from rela.representations.quality import effective_rank, linear_cka, sample_rows, uniformity

    num_images = dataset.num_images("train")
    if num_images < 2:
        raise ChoiceError(f"data set {dataset.name} has {num_images} image; nothing to compare")
    chosen = sample_rows(num_images, settings.rows)
    num_held_out = len(chosen) // _HELD_OUT_SHARE
    with_labels = num_held_out and dataset.content.labelled
    labels = dataset.labels()[chosen] if with_labels else None
    own = {run.name for run in workspace.runs() if run.images_sha256 == images}
    names = shown_names(artifact.prior for artifact in cached)
    with in_use(*(artifact.path for artifact in cached)):
        matrices = [_rows(artifact, chosen, num_images) for artifact in cached]
    found = [
        RankedPrior(
            prior=name,
            representations=artifact.name,
            width=rows.shape[1],
            effective_rank=effective_rank(rows),
            uniformity=uniformity(rows),
            knn=None if labels is None else _knn(dataset, rows, labels, num_held_out),
            own_run=not own.isdisjoint(_runs(artifact)),
        )
        for artifact, rows, name in zip(cached, matrices, names, strict=True)
    ]
    order = sorted(
        range(len(found)), key=lambda i: (-(found[i].knn or 0), -found[i].effective_rank)
    )
    cka = linear_cka([matrices[i] for i in order])
    return Ranking(
        dataset=dataset.name,
        num_images=num_images,
        num_rows=len(chosen),
        num_held_out=0 if labels is None else num_held_out,
        sorted_by="effective rank" if labels is None else f"{_PROTOCOL.k}-NN accuracy",
        priors=[found[i] for i in order],
        cka=np.round(cka, 6).tolist(),
        convert=None if dataset.has_images else shlex.join(dataset.command),
    )


def format_result(ranking: Ranking) -> str:
    """Tables of the measures, best prior first, and of linear CKA."""
    held_out = f", {ranking.num_held_out:,} of them held out" if ranking.num_held_out else ""
    measures, *others = ranking.tables().items()
    lines = [
        f"data set {ranking.dataset}, best first by {ranking.sorted_by}, on {ranking.num_rows:,} of "
        f"{ranking.num_images:,} training images{held_out}",
        format_table(*measures[1]),
    ]
    if any(ranked.own_run for ranked in ranking.priors):
        lines.append("* trained on these images")
    for title, table in others:
        lines += ["", title, format_table(*table)]
    best = next(
        (n for n, p in zip(ranking.names, ranking.priors, strict=True) if not p.own_run), ""
    )
    if ranking.convert is not None:
        lines.append(f"next: `{ranking.convert}`")
    elif best:
        lines.append(next_command("train", ranking.dataset, "--prior", best))
    return "\n".join(lines)


def _rows(
    artifact: Representations, chosen: "NDArray[np.int64]", num_images: int
) -> "NDArray[Any]":
    import numpy as np

    path, values = artifact.path, artifact.matrix(verify=False).values
    if len(values) != num_images:
        raise DataError(f"{path} holds {len(values)} rows, the data set has {num_images} images")
    rows = np.asarray(values[chosen])
    if not np.isfinite(rows).all():
        raise DataError(f"{path} contains NaN or Inf; {remedy(path)}")
    return rows


def _knn(
    dataset: DataSet, rows: "NDArray[Any]", labels: "NDArray[np.int64]", num_held_out: int
) -> float:
    """k-NN accuracy on the first rows, a random sample, with the other rows as training set."""
    import numpy as np
    import torch

    from rela.evaluation.knn import knn_accuracy

    features, classes = torch.from_numpy(rows.astype(np.float32)), torch.from_numpy(labels)
    num_classes = len(dataset.content.class_names)
    return knn_accuracy(
        features[num_held_out:], classes[num_held_out:], features[:num_held_out],
        classes[:num_held_out], num_classes, _PROTOCOL,
    )  # fmt: skip


def _runs(artifact: Representations) -> set[str | None]:
    """The runs that computed the representations, or components of a combination."""
    return {artifact.content.run, *(component.run for component in artifact.content.components)}
