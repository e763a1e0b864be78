"""`scripts/faults [NAME...]`: run campaigns one after the other; status 1 if any promise broke."""

import argparse
import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.faults import BY_STAGE, CAMPAIGNS, STAGES
from benchmarks.speed.__main__ import describe_machine


def main() -> None:
    names = "\n".join(f"  {name:<12} {text}" for name, text in CAMPAIGNS.items())
    parser = argparse.ArgumentParser(
        prog="scripts/faults",
        description=f"What is promised when things break, tried by breaking them.\n\n{names}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="*", help="which to run (default: all)")
    parser.add_argument(
        "--stage",
        action="append",
        choices=STAGES,
        help=f"try this one only ({', '.join(BY_STAGE)})",
    )
    parser.add_argument("--trials", type=int, default=0, help="of every kind, not the usual number")
    parser.add_argument("--scratch", type=Path, default=Path("rela-faults"))
    parser.add_argument("--json", action="store_true", help="one JSON object at the end")
    arguments = parser.parse_args()
    chosen = arguments.name or list(CAMPAIGNS)
    if unknown := set(chosen) - set(CAMPAIGNS):
        parser.error(f"no campaign {', '.join(sorted(unknown))}; there are {', '.join(CAMPAIGNS)}")
    arguments.scratch.mkdir(parents=True, exist_ok=True)
    machine = describe_machine()
    found: dict[str, Any] = {}
    all_held = True
    for name in chosen:
        start = time.perf_counter()
        module = importlib.import_module(f"benchmarks.faults.{name}")
        stages = [tuple(arguments.stage or STAGES)] if name in BY_STAGE else []
        tallies = module.run(arguments.trials, arguments.scratch.absolute(), *stages)
        found[name] = [tally.as_json() for tally in tallies]
        all_held = all_held and all(tally.held == tally.total for tally in tallies)
        if not arguments.json:
            lines = "\n".join(line for tally in tallies for line in tally.lines())
            print(f"\n{name}, {time.perf_counter() - start:.0f} s\n{lines}", flush=True)
    if arguments.json:
        print(json.dumps({"machine": machine, "results": found}, indent=1))
    sys.exit(not all_held)


if __name__ == "__main__":
    main()
