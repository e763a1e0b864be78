"""No algorithm: targets are regressed to the end (ReLA, arXiv 2405.14669, "stage 1 alone")."""

from torch import Tensor

from rela.data.views import View, stage1_views
from rela.methods.method import REFERENCE_OPTIMIZER, Method, Progress


class Stage1Only(Method):
    """There is no stage 2, so nothing but the backbone."""

    optimizer = REFERENCE_OPTIMIZER
    default_hyperparameters = "reference"

    def views(self) -> tuple[View, ...]:
        """Those of stage 1."""
        return stage1_views(self.options.image_size)

    def forward(
        self, views: list[Tensor], labels: Tensor, progress: Progress
    ) -> tuple[Tensor, list[Tensor]]:
        """Never called: the hand-over does not come."""
        raise AssertionError("stage 1 alone has no stage 2")
