"""Which known names of models were probably meant by another one.

Libraries name one model in many ways: `dinov2_vits14`, `facebook/dinov2-small` and
`vit_small_patch14_dinov2` are the same. So names are compared by their parts, and by their letters for
slips of the keyboard.
"""

import difflib
import math
import re
from collections import Counter
from collections.abc import Iterable
from itertools import chain

_SIZES = {
    "ti": "tiny",
    "t": "tiny",
    "s": "small",
    "b": "base",
    "l": "large",
    "h": "huge",
    "g": "giant",
}
_MEANINGS = {"registers": "reg", "vit": "vit", "rn": "resnet"}
_NO_MEANING = {"patch", "with", "pretrain", ""}
_LEAST = 0.35  # of the parts of both names together, rare ones weighing more


def similar_names(name: str, known: Iterable[str], count: int = 4) -> list[str]:
    """The known names that are most like `name`, best first; few or none if nothing is like it."""
    candidates = list(dict.fromkeys(known))
    scores = dict.fromkeys(difflib.get_close_matches(name, candidates, n=count), 0.0)
    for close in scores:
        scores[close] = difflib.SequenceMatcher(None, name, close).ratio()
    parts = {candidate: _parts(candidate) for candidate in candidates}
    counts = Counter(chain.from_iterable(parts.values()))
    rarity = {part: math.log(2 * len(candidates) / count) for part, count in counts.items()}
    wanted = _parts(name) & rarity.keys()  # not the name of a publisher
    for candidate, own in parts.items():
        if wanted & own:
            both, either = (sum(map(rarity.__getitem__, s)) for s in (wanted & own, wanted | own))
            alike = both / either
            if wanted <= own:  # `ijepa` is one of many parts of the name
                alike = max(alike, _LEAST + alike / 100)
            scores[candidate] = max(alike, scores.get(candidate, 0))
        bare = candidate.rpartition(":")[2].partition("@")[0]
        if _letters(bare) == _letters(name):
            scores[candidate] = 2 if bare == name.replace("/", "-") else 1
    good = [candidate for candidate in scores if scores[candidate] >= _LEAST]
    return sorted(good, key=lambda candidate: -scores[candidate])[:count]


def _letters(name: str) -> str:
    """`ViT-B/32` → `vitb32`."""
    return "".join(filter(str.isalnum, name.lower()))


def _parts(name: str) -> set[str]:
    """`dinov2_vits14` → {dino, v, 2, vit, small, 14}."""
    found: set[str] = set()
    for word in re.findall(r"[a-z]+?(?=v\d)|[a-z]+|\d+", name.lower()):
        sized = re.fullmatch(r"vit(ti|[tsblhg])", word)
        found |= (
            {"vit", _SIZES[sized[1]]} if sized else {_SIZES.get(word, _MEANINGS.get(word, word))}
        )
    return found - _NO_MEANING
