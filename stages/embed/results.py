"""What embeddings give: of one prior, of several, or of several layers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rela.result import Result, Table
from rela.stages.workspace.representations import Representations


@dataclass(frozen=True, repr=False)
class EmbedResult(Result):
    """The representations (None while other shards still work), and whether they existed.

    `names` is the CSV of the data set; column `path` of its row i is the image of row i.
    """

    artifact: Representations | None
    names: Path
    cached: bool
    num_embedded: int
    seconds: float

    def shown(self) -> dict[str, Any]:
        """The representations, and what they took."""
        known = {"waits for": "other shards"} if self.artifact is None else self.artifact.shown()
        return {**known, "cached": self.cached, "seconds": round(self.seconds, 1)}


@dataclass(frozen=True, repr=False)
class CombineResult(Result):
    """The combination (None while other shards still embed) and its components.

    `names` as in EmbedResult.
    """

    artifact: Representations | None
    names: Path
    cached: bool
    components: list[EmbedResult]
    seconds: float

    def shown(self) -> dict[str, Any]:
        """The combination, and what it took."""
        known = {"waits for": "other shards"} if self.artifact is None else self.artifact.shown()
        return {**known, "cached": self.cached, "seconds": round(self.seconds, 1)}

    def tables(self) -> dict[str, Table]:
        """A row for each component."""
        return {"components": _table(self.components)}


@dataclass(frozen=True, repr=False)
class LayersResult(Result):
    """Several layers, in the order in which they were asked for, each with an artifact of its own.

    `maps`: with --dense, a result for each layer.
    """

    layers: list[EmbedResult | CombineResult]
    maps: list[EmbedResult] = field(default_factory=list)

    @property
    def cached(self) -> bool:
        """Whether all of them existed."""
        return all(each.cached for each in (*self.layers, *self.maps))

    def shown(self) -> dict[str, Any]:
        """How many there are."""
        return {"layers": len(self.layers), "maps": len(self.maps) or None, "cached": self.cached}

    def tables(self) -> dict[str, Table]:
        """A row for each layer."""
        maps = {"maps": _table(self.maps)} if self.maps else {}
        return {"layers": _table(self.layers), **maps}


def _table(results: Sequence[EmbedResult | CombineResult]) -> Table:
    header = ("prior", "width", "cached", "seconds")
    shown = [{"prior": "–", **each.shown()} for each in results]
    return header, [[each.get(name) for name in header] for each in shown]
