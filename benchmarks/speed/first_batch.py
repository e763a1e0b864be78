"""`python -m benchmarks.speed.first_batch SIDE BETON SIZE`: end after the first batch of two views.

SIDE: "rela", all operations on, as in BYOL's views (those of `rela.methods` would import what losses and
models need), or one of ffcv_views.COLOURS.
"""

import os
import sys
from pathlib import Path


def main() -> None:
    from rela.data.views import View

    side, beton, size = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    if side == "rela":
        from rela.data.beton.reader import open_beton
        from rela.data.loader import ViewLoader

        view = View(size, blur_probability=0.5, solarize_probability=0.2)
        next(iter(ViewLoader(open_beton(beton), (view, view), 64)))
    else:
        from benchmarks.speed.ffcv_views import ffcv_loader

        next(iter(ffcv_loader(beton, (View(size), View(size)), 64, side)))
        os._exit(0)  # its threads would finish the epoch


if __name__ == "__main__":
    main()
