"""Should W, stage 1's linear layer, be trained? Fixed against learned, over hand-overs and seeds.

On the digits of `rela demo`: the prior saw 0 to 4, the target model learns all ten. Prints one row
per setting: mean ± standard deviation over seeds of 20-NN and linear accuracy (percent).

    python benchmarks/stage1_head.py --epochs 5 --seeds 3
"""

import argparse
from pathlib import Path

from rela.stages.convert import convert
from rela.stages.demo import PRIOR_DIGITS, PRIOR_EPOCHS, write_digits
from rela.stages.display import Spread, format_table
from rela.stages.embed.embed import embed
from rela.stages.evaluate.evaluate import evaluate_run
from rela.stages.priors.requests import prior_request
from rela.stages.requests import Convert, Train
from rela.stages.train.train import train
from rela.stages.workspace.workspace import Workspace
from rela.training.settings import TrainSettings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--handovers", type=float, nargs="+", default=[0.5, 0.75, 1.0])
    parser.add_argument("--output", type=Path, default=Path("rela-benchmark"))
    arguments = parser.parse_args()

    workspace = Workspace(arguments.output / "workspace")
    data = {}
    for name, digits in (("digits", range(10)), ("digits-0-4", range(PRIOR_DIGITS))):
        write_digits(arguments.output / name, digits)
        data[name] = convert(workspace, Convert(arguments.output / name)).artifact
    few = TrainSettings(prior="none", epochs=PRIOR_EPOCHS)
    prior = train(workspace, Train("digits-0-4", name="prior-0-4", **vars(few))).artifact
    embed(workspace, data["digits"], prior_request(data["digits"], prior.name))

    settings = [("none", None, "learned")]
    settings += [
        (prior.name, h, head) for h in arguments.handovers for head in ("learned", "fixed")
    ]
    rows = []
    for prior_name, handover, head in settings:
        found = []
        for seed in range(arguments.seeds):
            chosen = TrainSettings(
                prior=prior_name,
                handover=handover,
                head=head,
                epochs=arguments.epochs,
                seed=seed,
            )
            run = train(workspace, Train("digits", **vars(chosen))).artifact
            accuracies = evaluate_run(workspace, run).results["accuracies"]
            found.append((accuracies["knn20"]["top1"], accuracies["linear-reference"]["top1"]))
        columns = [Spread.of([pair[i] for pair in found]).percent(1) for i in (0, 1)]
        row = ["–", "–"] if prior_name == "none" else [handover, head]
        rows.append([prior_name, *map(str, row), *columns])
        print("  ".join(map(str, rows[-1])), flush=True)
    print(format_table(["prior", "hand-over", "W", "20-NN %", "linear %"], rows))


if __name__ == "__main__":
    main()
