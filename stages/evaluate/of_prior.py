"""The prior that a run learned from, measured by the probes of the run."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rela.errors import ChoiceError, UnavailableError, failure_of
from rela.evaluation.protocols import FinetuneProtocol
from rela.pipeline import Say
from rela.pipeline.artifact import staging
from rela.stages.embed.embed import embed
from rela.stages.evaluate.measured import Evaluation, chosen_protocols, measured
from rela.stages.evaluate.probing import Probing, mapped
from rela.stages.evaluate.speed import speed_of
from rela.stages.priors.again import embed_command, request_again
from rela.stages.priors.find import shown_name
from rela.stages.priors.identify import identify
from rela.stages.priors.records import Known, priors_of
from rela.stages.settings import EmbedSettings, EvaluateSettings
from rela.stages.workspace.dataset import DataSet
from rela.stages.workspace.representations import REPRESENTATIONS_FILE, Representations
from rela.stages.workspace.run import Run
from rela.stages.workspace.workspace import Workspace

if TYPE_CHECKING:
    from numpy.typing import NDArray


def prior_of(
    workspace: Workspace,
    run: Run,
    dataset: DataSet | None,
    settings: EvaluateSettings,
    embedding: EmbedSettings,
    say: Say,
) -> Evaluation | str | None:
    """The evaluation of the run's prior by the requested probes of features, or why there is none.

    Cached representations are used, others are embedded; it never fails. None without a prior or without
    such a probe.
    """
    on_features = [
        protocol
        for protocol in chosen_protocols(settings)
        if protocol.data != "voc" and not isinstance(protocol, FinetuneProtocol)
    ]
    name, key = run.content.prior, run.settings.prior
    if name is None or dataset is None or not on_features:
        return None
    try:
        made = next((a for a in workspace.representations() if a.fingerprint == key), None)
        if made is None:
            raise ChoiceError(
                f"the representations that run {run.name} learned from are gone; embed that prior again"
            )
        how = replace(embedding, dtype=made.dtype, crops=0, precision=made.precision)
        priors = priors_of(made)
        features = _Features(workspace, dataset, priors, how, say)
        probing = Probing(workspace, dataset, features.of, how)
        identity, subject = made.prior, (dataset.name, dataset.fingerprint)
        name = shown_name(made)
        found = measured(probing, identity, name, subject, on_features, settings.seeds)
        speed = speed_of(workspace, priors, embedding.device)
        return replace(found, speed=speed, embed_seconds=made.seconds_by_phase["embed"])
    except Exception as error:  # the run's own figures are there, whatever is wrong with its prior
        failure = failure_of(error)
        return f"prior {name} is not shown: {failure[0] if failure else repr(error)}"


class _Features:
    """Features of centre crops by a prior, or by several that are combined."""

    def __init__(
        self,
        workspace: Workspace,
        dataset: DataSet,
        priors: Sequence[Known],
        settings: EmbedSettings,
        say: Say,
    ) -> None:
        self.workspace, self.dataset, self.priors = workspace, dataset, priors
        self.settings, self.say = settings, say

    def of(self, split: str) -> "AbstractContextManager[NDArray[Any]]":
        """The values [N, D] of a split."""
        several = [self._represent(known, split) for known in self.priors]
        return mapped(several[0]) if len(several) == 1 else self._combined(several)

    @contextmanager
    def _combined(self, several: list[Representations]) -> "Iterator[NDArray[Any]]":
        """Side by side, either split by the statistics of the training images."""
        from rela.representations.concatenation import fit_standardisation, write_combination
        from rela.representations.matrix_file import open_matrix

        train = [self._represent(known, "train") for known in self.priors]
        with ExitStack() as stack:
            values = [stack.enter_context(mapped(made)) for made in several]
            fitted = [fit_standardisation(stack.enter_context(mapped(made))) for made in train]
            # the next removes what a killed process leaves; NFS may keep a mapped file until it is closed
            folder = stack.enter_context(staging(self.workspace.evaluations_dir / "combined"))
            file = folder / REPRESENTATIONS_FILE
            write_combination(file, values, fitted, self.settings.dtype, {})
            yield open_matrix(file, verify=False).values

    def _represent(self, known: Known, split: str) -> Representations:
        """The cached representations of one prior, or new ones."""
        key = known[0].key()
        for found in self.workspace.representations(self.dataset.images_sha256(split)):
            format = self.settings.dtype, self.settings.precision
            same = found.prior.key() == key and (found.dtype, found.precision) == format
            if same and not found.content.crops:
                return found
        try:
            return self._embed(known, split)
        except Exception as error:
            failure = failure_of(error)
            if failure is None:
                raise
            command = embed_command(self.workspace, self.dataset, self.priors, self.settings, split)
            raise UnavailableError(
                f"there are no representations of split {split} by {known[0].name} ({failure[0]}); "
                f"`{command}` makes them"
            ) from error

    def _embed(self, known: Known, split: str) -> Representations:
        request = request_again(self.workspace, known)
        if request.weights is not None and not request.weights.is_file():
            raise UnavailableError(f"its weights file {request.weights} is gone")
        if identify(self.workspace, request).identity.key() != known[0].key():
            raise ChoiceError(f"{request.name} is another model by now")
        made = embed(
            self.workspace, self.dataset, request, self.settings, split, say=self.say
        ).artifact
        assert made is not None, "evaluations are never sharded"
        return made
