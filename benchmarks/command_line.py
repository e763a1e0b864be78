"""What `scripts/bench` and `scripts/faults` share: names to choose from, and what machine this is."""

import argparse
import os
import platform
from collections.abc import Mapping
from pathlib import Path

import torch


def named_parser(program: str, purpose: str, table: Mapping[str, str]) -> argparse.ArgumentParser:
    """A parser with NAME..., --scratch and --json; `table` says what every name stands for."""
    names = "\n".join(f"  {name:<12} {text}" for name, text in table.items())
    parser = argparse.ArgumentParser(
        prog=program,
        description=f"{purpose}\n\n{names}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="*", help="which to run (default: all that this machine can)")
    parser.add_argument("--scratch", type=Path, default=Path(f"rela-{Path(program).name}"))
    parser.add_argument("--json", action="store_true", help="one JSON object at the end")
    return parser


def parsed(parser: argparse.ArgumentParser, table: Mapping[str, str]) -> argparse.Namespace:
    """The command line's values, with names that are in `table` alone, and a scratch folder made."""
    arguments = parser.parse_args()
    if unknown := set(arguments.name) - set(table):
        parser.error(f"there is no {', '.join(sorted(unknown))}; choose from {', '.join(table)}")
    arguments.scratch = arguments.scratch.absolute()
    arguments.scratch.mkdir(parents=True, exist_ok=True)
    return arguments


def describe_machine() -> dict[str, str]:
    """Processor, cores, GPU and versions, to print beside figures."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "cpu": platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "gpu": gpu,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
