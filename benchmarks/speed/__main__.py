"""`scripts/bench [NAME...]`: run benchmarks one after the other and print what they found."""

import importlib
from argparse import Namespace
from typing import Any

from benchmarks.command_line import named_parser, run_named
from benchmarks.speed import BENCHMARKS


def main() -> None:
    parser = named_parser(
        "scripts/bench", "Speed, side by side with what one would otherwise run.", BENCHMARKS
    )
    parser.add_argument("--rounds", type=int, default=5, help="of every side, in turn")
    parser.set_defaults(name=[name for name in BENCHMARKS if name != "gpu"])
    run_named(parser, BENCHMARKS, benchmark)


def benchmark(name: str, arguments: Namespace) -> list[Any]:
    module = importlib.import_module(f"benchmarks.speed.{name}")
    return list(module.run(arguments.rounds, arguments.scratch))


if __name__ == "__main__":
    main()
