"""No algorithm: regression of targets until the end (stage 1 of ReLA, arXiv 2405.14669)."""

from torch import Tensor

from rela.data.views import View, stage1_views
from rela.methods.method import Method, Progress


class Stage1Only(Method):
    """A backbone without heads, since there is no stage 2."""

    def views(self) -> tuple[View, ...]:
        """The views of stage 1."""
        return stage1_views(self.options.image_size)

    def forward(
        self, views: list[Tensor], labels: Tensor, progress: Progress
    ) -> tuple[Tensor, list[Tensor]]:
        """Never called, since there is no hand-over."""
        raise AssertionError("this training has no stage 2")
