"""Round features to the stored dtype; reject NaN and Inf, warn about lost precision."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rela.errors import DataError
from rela.pipeline import Say

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Names = Callable[[], list[dict[str, str]]]

_NAMED_IMAGES = 5
# float16 has a relative precision of 5e-4 above 6e-5, and less below
_COARSE = 0.01


class Rounding:
    """Rounds features; warns once if they lose more than 1 %.

    `names`: what returns a dictionary for every row of the images; its name is `path`.
    """

    def __init__(self, names: Names, dtype: str, say: Say) -> None:
        self.names, self.dtype, self._say = names, dtype, say
        self._has_said = False

    def __call__(
        self, rows: "NDArray[np.int64]", features: "NDArray[np.float32]"
    ) -> "NDArray[Any]":
        """Features [R, D] of these R rows, in the stored dtype.

        Raises DataError naming the images for which they are NaN or Inf.
        """
        import numpy as np

        with np.errstate(over="ignore"):  # overflows are reported below
            values = features.astype(self.dtype)
        bad = np.unique(rows[~np.isfinite(values).all(axis=1)])
        if bad.size:
            raise DataError(self._not_finite(bad))
        exact = features.astype(np.float64)  # squares of small numbers underflow in float32
        size = np.linalg.norm(exact)
        lost = np.linalg.norm(values - exact) / size if size else 0.0
        if lost > _COARSE and not self._has_said:
            self._has_said = True
            self._say(
                f"warning: the prior's features are so small (at most {np.abs(exact).max():.0e}) that "
                f"rounding to {self.dtype} changes them by {100 * lost:.0f} %; use --dtype float32"
            )
        return values

    def _not_finite(self, bad: "NDArray[np.int64]") -> str:
        index = self.names()
        paths = ", ".join(index[row]["path"] for row in bad[:_NAMED_IMAGES])
        more = f" and {bad.size - _NAMED_IMAGES} more" if bad.size > _NAMED_IMAGES else ""
        hint = ""
        if self.dtype == "float16":
            hint = "; if its features are only too large, use --dtype float32"
        return (
            f"the prior returns NaN or Inf for {bad.size} images: {paths}{more}; nothing was stored "
            f"for them. Check the prior's weights{hint}"
        )
