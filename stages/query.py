"""One image file → its representation, by the priors that made cached ones and in the same way."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.artifact import Artifact
from rela.errors import ChoiceError, DataError, one_line
from rela.priors import POOLED, PriorIdentity, PriorRequest
from rela.priors.combination import Combination
from rela.sources.sample import Sample
from stages.combine import components_of
from stages.convert import encoding_of
from stages.embed import REPRESENTATIONS_FILE, prior_of
from stages.prior_records import KnownPrior, identify
from stages.workspace import Workspace

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def represent(
    workspace: Workspace,
    image: Path,
    dataset: Artifact,
    representations: Artifact,
    requests: Sequence[PriorRequest],
    device: str,
    say: Callable[[str], None],
) -> "NDArray[np.floating[Any]]":
    """The vector [D] that `image` would have among `representations` of centre crops.

    Of a combination the image is looked at by every prior, and each vector standardised as the
    component's rows were. The priors are found by `requests`, or by what the representations tell.
    Raises ChoiceError if one cannot be found, DataError for what is no image.
    """
    import numpy as np

    from rela.combination import fit_standardisation
    from rela.representations import open_matrix

    identity, content = prior_of(representations), representations.manifest.content
    if not isinstance(identity, Combination):
        prior = _same_prior(workspace, identity, content["run"], requests)
        [vector] = _look(image, dataset, [prior], device, say)
        return vector
    components = components_of(workspace, representations)
    runs = [component["run"] for component in content["components"]]
    priors = [
        _same_prior(workspace, each, run, requests)
        for each, run in zip(identity.components, runs, strict=True)
    ]
    blocks = []
    for vector, component in zip(
        _look(image, dataset, priors, device, say), components, strict=True
    ):
        rows = open_matrix(component.sound_file(REPRESENTATIONS_FILE), verify=False).values
        blocks.append(fit_standardisation(rows).apply(vector[None])[0])
    return np.concatenate(blocks)


def _same_prior(
    workspace: Workspace,
    identity: PriorIdentity,
    run: str | None,
    requests: Sequence[PriorRequest],
) -> KnownPrior:
    """The prior with this very identity: as it was asked for, or by what the representations tell."""
    for candidate in (*requests, _request_of(identity, run)):
        try:
            known = identify(workspace, candidate)
        except ChoiceError:
            continue  # its name alone, without the options, may mean nothing
        if known.identity.key() == identity.key():
            return known
    raise ChoiceError(
        f"prior {identity.name} of these representations cannot be found by this name alone; give "
        "--prior, --weights, --arch, --seed and --layer as `rela embed` had them"
    )


def _request_of(identity: PriorIdentity, run: str | None) -> PriorRequest:
    """A request that may mean this prior."""
    if run is not None:
        return PriorRequest(f"run:{run}", layer=identity.layer)
    name = identity.name
    if identity.layer != POOLED:
        name = name.removesuffix(f"@{identity.layer}")
    return PriorRequest(name, image_size=identity.image_size, layer=identity.layer)


def _look(
    image: Path,
    dataset: Artifact,
    priors: Sequence[KnownPrior],
    device: str,
    say: Callable[[str], None],
) -> "list[NDArray[np.float32]]":
    """What each prior makes of the image, which is stored as those of the data set are."""
    import numpy as np

    from rela.beton import open_beton
    from rela.beton_writer import write_beton
    from rela.embedding import Embedder

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "image.beton"
        samples = [Sample(image.name, -1)]
        written = write_beton(path, image.parent, samples, encoding_of(dataset), num_workers=1)
        for _, reason in written.bad_images:
            raise DataError(f"{one_line(str(image))}: {one_line(reason)}")
        vectors = []
        for prior in priors:
            if prior.note:
                say(prior.note)
            embedder = Embedder(prior.load(), prior.identity.preprocessing, device)
            vectors.append(embedder(open_beton(path), np.arange(1))[0])
        return vectors
