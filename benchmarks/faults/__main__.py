"""`scripts/faults [NAME...]`: run campaigns one after the other; status 1 if any promise broke."""

import importlib
import sys
from argparse import Namespace

from benchmarks.command_line import named_parser, run_named
from benchmarks.faults import BY_STAGE, CAMPAIGNS, IN_FILE, Tally
from benchmarks.faults.commands import COMMANDS


def main() -> None:
    parser = named_parser(
        "scripts/faults", "What is promised when things break, tried by breaking them.", CAMPAIGNS
    )
    one = f"try this one only ({', '.join(BY_STAGE)})"
    parser.add_argument("--stage", action="append", choices=COMMANDS, help=one)
    parser.add_argument("--trials", type=int, default=0, help="of every kind, not the usual number")
    found = run_named(parser, CAMPAIGNS, campaign)
    sys.exit(any(tally.broken for tallies in found.values() for tally in tallies))


def campaign(name: str, arguments: Namespace) -> list[Tally]:
    """Run one, with its counts and problems on stderr as they come."""
    module = importlib.import_module(f"benchmarks.faults.{IN_FILE.get(name, name)}")
    stages = [tuple(arguments.stage or COMMANDS)] if name in BY_STAGE else []
    tallies = []
    for tally in getattr(module, name)(arguments.trials, arguments.scratch, *stages):
        print("\n".join(tally.lines()), file=sys.stderr, flush=True)
        tallies.append(tally)
    return tallies


if __name__ == "__main__":
    main()
