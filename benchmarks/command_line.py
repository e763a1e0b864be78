"""What `scripts/bench` and `scripts/faults` share: names to choose from, what was found on what machine."""

import json
import os
import platform
import time
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def named_parser(program: str, purpose: str, table: Mapping[str, str]) -> ArgumentParser:
    """A parser with NAME..., --scratch and --json; `table` says what every name stands for."""
    names = "\n".join(f"  {name:<12} {text}" for name, text in table.items())
    parser = ArgumentParser(
        prog=program,
        description=f"{purpose}\n\n{names}",
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="*", help="which to run (default: all that this machine can)")
    parser.add_argument("--scratch", type=Path, default=Path(f"rela-{Path(program).name}"))
    parser.add_argument("--json", action="store_true", help="one JSON object at the end")
    return parser


def run_named(
    parser: ArgumentParser, table: Mapping[str, str], run: Callable[[str, Namespace], list[Any]]
) -> dict[str, list[Any]]:
    """Run the names of the command line; print what each finds: objects with lines() and as_json()."""
    arguments = parser.parse_args()
    if unknown := set(arguments.name) - set(table):
        parser.error(f"there is no {', '.join(sorted(unknown))}; choose from {', '.join(table)}")
    arguments.scratch = arguments.scratch.absolute()
    arguments.scratch.mkdir(parents=True, exist_ok=True)
    machine, found = describe_machine(), {}
    if not arguments.json:
        print(", ".join(f"{key} {value}" for key, value in machine.items()), flush=True)
    for name in arguments.name or table:
        start = time.perf_counter()
        found[name] = run(name, arguments)
        if not arguments.json:
            print(f"\n{name}, {time.perf_counter() - start:.0f} s")
            print("\n".join(line for each in found[name] for line in each.lines()), flush=True)
    if arguments.json:
        results = {name: [each.as_json() for each in found[name]] for name in found}
        print(json.dumps({"machine": machine, "results": results}, indent=1))
    return found


def describe_machine() -> dict[str, str]:
    """Processor, cores, GPU and versions, to print beside figures."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "cpu": platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "gpu": gpu,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
