"""One range of values for all images of a data set, known once all are read."""

from collections.abc import Callable
from dataclasses import replace

from rela.data.beton.encoding import Encoding
from rela.data.beton.tally import Tally
from rela.data.beton.writer import WriteResult
from rela.pipeline import Say
from rela.sources.pixels import PixelRules, range_in_words, with_range_of

Results = dict[str, WriteResult]


def write_in_range(
    write: Callable[[Encoding], Results],
    encoding: Encoding,
    bits: int | None,
    strict: bool,
    say: Say,
) -> tuple[Results, PixelRules]:
    """What `write` returns, by the range of the images, and that range.

    It is called again if images of more than 8 bits have another range than `encoding` assumes. `bits`:
    a chosen range of whole numbers; `strict`: bad images spoil the result, so that it is not written again.
    """
    results = write(encoding)
    largest = sum((result.tally for result in results.values()), Tally()).largest
    if bits is not None:
        largest.pop("integer", None)
    rules = with_range_of(encoding.pixels, largest)
    spoiled = strict and any(result.bad_images for result in results.values())
    if rules != encoding.pixels and not spoiled:
        found = (rules.float_bits if depth == "float" else rules.bits for depth in largest)
        ranges = "; ".join(map(range_in_words, found))
        say(f"images of more than 8 bits are scaled to their range ({ranges}): writing again")
        results = write(replace(encoding, pixels=rules))
    return results, rules
