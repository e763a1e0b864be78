"""`scripts/faults [NAME...]`: run campaigns one after the other; status 1 if any promise broke."""

import importlib
import json
import sys
import time
from typing import Any

from benchmarks.command_line import describe_machine, named_parser, parsed
from benchmarks.faults import BY_STAGE, CAMPAIGNS, STAGES


def main() -> None:
    parser = named_parser(
        "scripts/faults", "What is promised when things break, tried by breaking them.", CAMPAIGNS
    )
    parser.add_argument(
        "--stage",
        action="append",
        choices=STAGES,
        help=f"try this one only ({', '.join(BY_STAGE)})",
    )
    parser.add_argument("--trials", type=int, default=0, help="of every kind, not the usual number")
    arguments = parsed(parser, CAMPAIGNS)
    found: dict[str, Any] = {}
    all_held = True
    for name in arguments.name or CAMPAIGNS:
        start = time.perf_counter()
        module = importlib.import_module(f"benchmarks.faults.{name}")
        stages = [tuple(arguments.stage or STAGES)] if name in BY_STAGE else []
        tallies = module.run(arguments.trials, arguments.scratch, *stages)
        found[name] = [tally.as_json() for tally in tallies]
        all_held = all_held and all(tally.held == tally.total for tally in tallies)
        if not arguments.json:
            lines = "\n".join(line for tally in tallies for line in tally.lines())
            print(f"\n{name}, {time.perf_counter() - start:.0f} s\n{lines}", flush=True)
    if arguments.json:
        print(json.dumps({"machine": describe_machine(), "results": found}, indent=1))
    sys.exit(not all_held)


if __name__ == "__main__":
    main()
