"""`scripts/bench [NAME...]`: run benchmarks one after the other and print what they found."""

import argparse
import importlib
import json
import os
import platform
from pathlib import Path
from typing import Any

import torch

from benchmarks.speed import BENCHMARKS


def main() -> None:
    names = "\n".join(f"  {name:<12} {text}" for name, text in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description=f"Speed, side by side with what one would otherwise run.\n\n{names}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="*", help="which to run (default: all but gpu)")
    parser.add_argument("--rounds", type=int, default=5, help="of every side, in turn")
    parser.add_argument("--scratch", type=Path, default=Path("rela-benchmark"))
    parser.add_argument("--json", action="store_true", help="one JSON object at the end")
    arguments = parser.parse_args()
    chosen = arguments.name or [name for name in BENCHMARKS if name != "gpu"]
    if unknown := set(chosen) - set(BENCHMARKS):
        parser.error(
            f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}"
        )
    arguments.scratch.mkdir(parents=True, exist_ok=True)
    machine = describe_machine()
    if not arguments.json:
        print(", ".join(f"{key} {value}" for key, value in machine.items()), flush=True)
    found: dict[str, Any] = {}
    for name in chosen:
        module = importlib.import_module(f"benchmarks.speed.{name}")
        results = module.run(arguments.rounds, arguments.scratch.absolute())
        found[name] = [result.as_json() for result in results]
        if not arguments.json:
            print(
                "\n".join(["", *(line for result in results for line in result.lines())]),
                flush=True,
            )
    if arguments.json:
        print(json.dumps({"machine": machine, "benchmarks": found}))


def describe_machine() -> dict[str, str]:
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "cpu": platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "gpu": gpu,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


if __name__ == "__main__":
    main()
