"""What the images of a split were and what became of them, counted while they are written."""

from collections import Counter
from dataclasses import dataclass, field, fields

from rela.data.beton.encoding import StoredImage

MAX_NAMES = 3


@dataclass
class Named:
    """A number of images, and the names of the first."""

    count: int = 0
    names: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        """Count one more."""
        self.count += 1
        if len(self.names) < MAX_NAMES:
            self.names.append(name)

    def __add__(self, other: "Named") -> "Named":
        return Named(self.count + other.count, [*self.names, *other.names][:MAX_NAMES])


@dataclass
class Tally:
    """Counts of a split; memory does not grow with its images.

    - `formats`: of the files; `sizes`: stored (height, width), in pixels;
    - `deep`: of more than 8 bits; `largest`: the largest value of those with an undeclared range, by the
      kind of `Origin.depth`;
    - `several`: of several frames or pages, of which the first is stored;
    - `one_colour`: all pixels are equal; `vanished`: those of them that have transparent pixels.
    """

    formats: Counter[str] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    largest: dict[str, float] = field(default_factory=dict)
    transparent: Named = field(default_factory=Named)
    turned: Named = field(default_factory=Named)
    deep: Named = field(default_factory=Named)
    several: Named = field(default_factory=Named)
    one_colour: Named = field(default_factory=Named)
    vanished: Named = field(default_factory=Named)

    def add(self, name: str, stored: StoredImage) -> None:
        """Count one more image."""
        origin = stored.origin
        self.formats[origin.format] += 1
        self.sizes[stored.height, stored.width] += 1
        if origin.transparent:
            self.transparent.add(name)
        if origin.turned:
            self.turned.add(name)
        if origin.several:
            self.several.add(name)
        if origin.depth:
            self.deep.add(name)
            if origin.depth != "declared":
                self.largest[origin.depth] = max(self.largest.get(origin.depth, 0), origin.largest)
        if stored.one_colour:
            self.one_colour.add(name)
            if origin.transparent:
                self.vanished.add(name)

    def __add__(self, other: "Tally") -> "Tally":
        """The counts of both."""
        largest = {
            depth: max(tally.largest.get(depth, 0) for tally in (self, other))
            for depth in {*self.largest, *other.largest}
        }
        both = {
            f.name: getattr(self, f.name) + getattr(other, f.name)
            for f in fields(self)
            if f.name != "largest"
        }
        return Tally(**both, largest=largest)
