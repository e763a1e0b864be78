"""`scripts/bench [NAME...]`: run benchmarks one after the other and print what they found."""

import importlib
import json
from typing import Any

from benchmarks.command_line import describe_machine, named_parser, parsed
from benchmarks.speed import BENCHMARKS


def main() -> None:
    parser = named_parser(
        "scripts/bench", "Speed, side by side with what one would otherwise run.", BENCHMARKS
    )
    parser.add_argument("--rounds", type=int, default=5, help="of every side, in turn")
    arguments = parsed(parser, BENCHMARKS)
    machine = describe_machine()
    if not arguments.json:
        print(", ".join(f"{key} {value}" for key, value in machine.items()), flush=True)
    found: dict[str, Any] = {}
    for name in arguments.name or [name for name in BENCHMARKS if name != "gpu"]:
        module = importlib.import_module(f"benchmarks.speed.{name}")
        results = module.run(arguments.rounds, arguments.scratch)
        found[name] = [result.as_json() for result in results]
        if not arguments.json:
            print(
                "\n".join(["", *(line for result in results for line in result.lines())]),
                flush=True,
            )
    if arguments.json:
        print(json.dumps({"machine": machine, "benchmarks": found}))


if __name__ == "__main__":
    main()
