"""`python -m benchmarks.speed.first_batch BETON SIZE`: end after the first batch of two views.

All operations on, as in BYOL's views; those of `rela.methods` would import what losses and models need.
"""

import argparse
from pathlib import Path

from rela.data.beton.reader import open_beton
from rela.data.loader import ViewLoader
from rela.data.views import View


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("beton", type=Path)
    parser.add_argument("size", type=int)
    arguments = parser.parse_args()
    view = View(arguments.size, blur_probability=0.5, solarize_probability=0.2)
    next(iter(ViewLoader(open_beton(arguments.beton), (view, view), 64)))


if __name__ == "__main__":
    main()
