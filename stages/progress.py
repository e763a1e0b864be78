"""Progress bars: a rate and an ETA on a terminal, nothing elsewhere."""

from typing import Any

from tqdm import tqdm


def progress_bar(total: int, description: str, unit: str, initial: int = 0) -> Any:
    """A bar on standard error; silent when that is not a terminal."""
    return tqdm(
        total=total, desc=description, unit=unit, initial=initial, disable=None, dynamic_ncols=True,
        smoothing=0.05,
    )  # fmt: skip
