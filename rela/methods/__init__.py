"""Self-supervised algorithms. One file each, with loss, heads and views; one line each here."""

from typing import TYPE_CHECKING, Protocol

from rela.errors import ChoiceError

if TYPE_CHECKING:  # the command line lists METHOD_NAMES without importing torch
    from torch import Tensor, nn

    from rela.views import View

METHOD_NAMES = ("byol",)


class Method(Protocol):
    """What stage 2 needs of an algorithm. Implementations are torch modules."""

    backbone: "nn.Module"

    def views(self, size: int) -> "tuple[View, ...]":
        """The random views of one image, at `size` pixels."""
        ...

    def __call__(self, views: "list[Tensor]") -> "tuple[Tensor, list[Tensor]]":
        """Views [B, 3, S, S] → (loss, features of each view [B, F])."""
        ...

    def update_momentum(self) -> None:
        """Called after every optimizer step of both stages."""
        ...


def build_method(name: str, backbone: "nn.Module", feature_dim: int) -> "nn.Module":
    """The algorithm `name` around `backbone`; raises ChoiceError listing what there is."""
    if name == "byol":
        from rela.methods.byol import BYOL

        return BYOL(backbone, feature_dim)
    raise ChoiceError(f"no method {name!r}; there is {', '.join(METHOD_NAMES)}")
