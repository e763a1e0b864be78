"""`--init`: a prior, a run or a file whose weights a training begins with.

As a setting of a run it is NAME#DIGEST. Only the digest of the weights counts for the run's fingerprint; NAME
says where they came from. A network of the caller's own code begins with `itself#DIGEST` if it has weights,
else with `seeded#DIGEST` of what no seed changes.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rela.errors import ChoiceError, MisfitError, UnavailableError, instead, one_line
from rela.models.own_code.networks import full_name, is_own
from rela.pipeline.fingerprint import file_sha256
from rela.priors import POOLED, PriorRequest
from rela.priors.checkpoint_file import PREFIX as FILE_PREFIX
from rela.priors.earlier_run import BACKBONE_FILE, read_backbone, read_identity
from rela.priors.names import WEIGHTS_SUFFIXES
from rela.priors.timm import PREFIX as TIMM_PREFIX
from rela.stages.priors.identify import identify
from rela.stages.priors.requests import names_of, prior_request
from rela.stages.train.prior import NO_PRIOR, RANDOM_PRIOR
from rela.stages.workspace.dataset import DataSet
from rela.stages.workspace.run import ITSELF, SEEDED, begun_from
from rela.stages.workspace.workspace import Workspace
from rela.training.settings import TrainSettings

if TYPE_CHECKING:
    from torch import nn

_DIGITS = 16
_RECORDED = re.compile(rf"(.+)#([0-9a-f]{{{_DIGITS}}})")


@dataclass(frozen=True)
class WarmStart:
    """Weights by name.

    - `sha256`: of a prior's or a run's state, or of a file; `arch`: their architecture, if it is known;
    - `read`: the tensors by name, possibly inside of other dictionaries; `file`: where they are, if in one.
    """

    name: str
    sha256: str
    arch: str | None
    read: Callable[[], Any]
    file: Path | None = None

    @property
    def words(self) -> str:
        """What to say of it."""
        own = {ITSELF: f"that {self.arch} was given with", SEEDED: f"of {self.arch}, by the seed"}
        return f"begins with the weights {own.get(self.name, f'of {self.name}')}"

    @property
    def setting(self) -> str:
        """NAME#DIGEST."""
        return f"{self.name}#{self.sha256[:_DIGITS]}"

    def backbone(self, model: str, image_size: int) -> tuple["nn.Module", str]:
        """The model with these weights, and what was found; position embeddings are interpolated.

        Raises MisfitError, with the architecture that they fit, if they do not fit the model.
        """
        from rela.models.backbones import assemble_backbone
        from rela.models.foreign_checkpoints import encoder_in

        backbone, classifier = assemble_backbone(model, image_size, seed=0)
        place = Path(self.file or self.name)
        try:
            encoder = encoder_in(self.read(), place, backbone, classifier)
            encoder.load(backbone, place)
        except MisfitError as error:
            fits = self._fits(model)
            if fits is None:
                raise
            better = MisfitError(f"--init {self.name} does not fit --model {model}; it fits {fits}")
            raise (instead(better, model=fits) if is_trainable(fits) else better) from error
        return backbone, encoder.note()

    def _fits(self, model: str) -> str | None:
        """Another architecture than `model` that the weights fit, if one is known."""
        if self.arch is None and self.file is not None:
            from rela.priors.fitting import fitting_architecture

            return fitting_architecture(PriorRequest(model), self.file)
        return None if self.arch == model else self.arch


def begun_with(
    workspace: Workspace, dataset: DataSet, settings: TrainSettings, may_build: bool = True
) -> tuple[TrainSettings, WarmStart | None]:
    """The settings with NAME#DIGEST as `init`, and the weights; the model is theirs if none is chosen.

    Without `may_build`, a prior that is not known here raises ChoiceError.
    """
    if settings.model is not None and is_own(settings.model):
        settings = replace(settings, model=full_name(settings.model))
        if settings.init is None or begun_from(settings) is None:
            start = _own_start(dataset, settings)
            return replace(settings, init=start.setting), start
    if settings.init is None:
        return settings, None
    start = _warm_start(workspace, dataset, settings.init, may_build)
    model = settings.model
    if model is None and start.arch is not None and is_trainable(start.arch):
        model = start.arch
    return replace(settings, init=start.setting, model=model), start


def _own_start(dataset: DataSet, settings: TrainSettings) -> WarmStart:
    """The weights that a network of own code has by itself, for this seed."""
    from rela.models.backbones import build_backbone
    from rela.models.weights import state_sha256

    model, size = str(settings.model), settings.image_size or dataset.default_image_size
    state, other = (
        build_backbone(model, size, seed).state_dict()
        for seed in (settings.seed, settings.seed + 1)
    )
    fixed = {k: v for k, v in state.items() if k in other and v.equal(other[k])}
    digest = state_sha256(fixed)
    if settings.init is not None and digest_of(settings.init) != digest[:_DIGITS]:
        raise ChoiceError(f"--init {settings.init}: {model} has other weights; leave it out")
    name = ITSELF if len(fixed) == len(state) else SEEDED
    return WarmStart(name, digest, model, lambda: state)


def digest_of(init: str) -> str:
    """DIGEST of NAME#DIGEST."""
    return init.rpartition("#")[2]


def is_trainable(arch: str) -> bool:
    """Whether `--model` takes the architecture."""
    from rela.models.backbones import model_names

    return arch.startswith(TIMM_PREFIX) or is_own(arch) or arch in model_names()


def _warm_start(workspace: Workspace, dataset: DataSet, init: str, may_build: bool) -> WarmStart:
    recorded = _RECORDED.fullmatch(init)
    name = init if recorded is None else recorded[1]
    try:
        start = _named(workspace, dataset, name, may_build)
    except ChoiceError as error:
        error.args = (str(error).replace("--prior", "--init"),)
        raise
    if recorded is not None and recorded[2] != digest_of(start.setting):
        raise ChoiceError(
            f"--init {name} has other weights by now, of digest {digest_of(start.setting)}, expected "
            f"{recorded[2]}; leave out #{recorded[2]} to begin with these"
        )
    return start


def _named(workspace: Workspace, dataset: DataSet, name: str, may_build: bool) -> WarmStart:
    from rela.models.weights import read_checkpoint, recorded_run

    run_name, path = name.removeprefix("run:"), Path(name.removeprefix(FILE_PREFIX))
    if workspace.has_run(run_name):
        run = workspace.run(run_name)
        identity, file = read_identity(run.path), run.path / BACKBONE_FILE
        return WarmStart(
            f"run:{run.name}", identity.weights_sha256, identity.arch,
            lambda: read_backbone(run.path, identity), file,
        )  # fmt: skip
    if path.is_file():
        recorded = recorded_run(path)
        return WarmStart(
            f"{FILE_PREFIX}{path.absolute()}", file_sha256(path),
            None if recorded is None else recorded[0], lambda: read_checkpoint(path), path,
        )  # fmt: skip
    if name.startswith(FILE_PREFIX) or path.suffix in WEIGHTS_SUFFIXES:
        raise UnavailableError(f"--init {one_line(name)}: no such weights file")
    if name in (NO_PRIOR, RANDOM_PRIOR):
        raise ChoiceError(f"--init {name}: expected a prior, a run or a file; leave it out")
    request = prior_request(dataset, name)
    known = identify(workspace, request, may_build)
    if len(names_of(workspace, name)) > 1 or known.identity.layer != POOLED:
        raise ChoiceError(f"--init {name}: expected one whole network, without a layer")
    identity = known.identity
    return WarmStart(
        name, identity.weights_sha256, identity.arch, lambda: known.load().state_dict()
    )
