"""`python -m benchmarks.speed.first_batch BETON SIZE`: end after the first batch of two views."""

import argparse
from pathlib import Path

from rela.beton import open_beton
from rela.loader import ViewLoader
from rela.methods.byol import byol_views


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("beton", type=Path)
    parser.add_argument("size", type=int)
    arguments = parser.parse_args()
    next(iter(ViewLoader(open_beton(arguments.beton), byol_views(arguments.size), 64)))


if __name__ == "__main__":
    main()
