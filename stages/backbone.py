"""A run, or a file that was exported from one → its backbone, and the transform of its images."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rela.errors import ChoiceError
from rela.pipeline import Say
from rela.pipeline.locks import in_use
from rela.priors import PriorIdentity, PriorRequest, earlier_run, resolve
from rela.priors.earlier_run import BACKBONE_FILE
from rela.result import Result
from rela.stages.export.export import ExportResult
from rela.stages.train.fit import TrainResult
from rela.stages.train.snapshot import run_or_snapshot
from rela.stages.workspace.run import Run
from rela.stages.workspace.workspace import Workspace

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, repr=False)
class Backbone(Result):
    """A network and its transform, to be taken apart: `module, transform = backbone`.

    - `module`: float32 [B, 3, S, S] → features [B, D], in eval mode, on the CPU;
    - `transform`: PIL image → float32 [3, S, S], what the module expects; a torchvision `Compose`;
    - `identity`: its architecture, input size, width and the digest of its weights.
    """

    module: "nn.Module"
    transform: "Callable[[Any], Tensor]"
    identity: PriorIdentity

    def __iter__(self) -> Iterator[Any]:
        return iter((self.module, self.transform))

    def shown(self) -> dict[str, Any]:
        """Where it comes from, and what it takes and returns."""
        size = self.identity.image_size
        return {
            "of": self.identity.name,
            "architecture": self.identity.arch,
            "weights": sum(weights.numel() for weights in self.module.parameters()),
            "input": f"3 × {size} × {size}",
            "width": self.identity.feature_dim,
        }


def load_backbone(
    workspace: Workspace,
    which: str | Path | Run | TrainResult | ExportResult | None,
    say: Say = print,
) -> Backbone:
    """The backbone of a run, by its name or its result, or of an exported .safetensors file.

    Of an unfinished run, that of its last checkpoint.

    Raises ChoiceError if there is no such run or file, or if the file does not record what it is; DataError
    if the weights are not those that were written.
    """
    from rela.models.transform import transform_of

    found = which.path if isinstance(which, ExportResult) else getattr(which, "artifact", which)
    path = Path(str(found))
    path = path / BACKBONE_FILE if path.is_dir() else path
    if isinstance(found, str | Path) and not workspace.has_run(str(found)) and path.is_file():
        prior = resolve(PriorRequest(f"file:{_recording(path)}"))
        transform = transform_of(prior.identity.preprocessing)
        return Backbone(prior.load().eval(), transform, prior.identity)
    if isinstance(found, Run):
        run = found
    else:
        run = run_or_snapshot(workspace, None if found is None else str(found), say)
    with in_use(run.path):
        identity = earlier_run.read_identity(run.path)
        module = earlier_run.load_backbone(run.path, identity)
    return Backbone(module, transform_of(identity.preprocessing), identity)


def _recording(path: Path) -> Path:
    """The file; raises ChoiceError unless it records architecture and input size."""
    from rela.models.weights import recorded_run

    if recorded_run(path) is None:
        raise ChoiceError(
            f"{path} does not record its architecture and preprocessing; name the run, or a file of "
            "rela.export(to='safetensors')"
        )
    return path
