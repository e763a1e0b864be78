"""How large are the gradients of an algorithm beside those of the target loss?

    python -m benchmarks.gradient_sizes fashion --prior timm:tf_efficientnet_lite0@lite0.pth

Trains one epoch of each algorithm on a data set of the workspace, half of it in stage 1, with the defaults of
`rela train`. In every tenth step of stage 2, prints the geometric mean of the ratio of both gradients'
norms, over all weights of the backbone. The defaults of --anchor are in proportion to these ratios.
"""

import argparse
import statistics
from pathlib import Path
from typing import Any

import torch

from rela.methods import METHODS
from rela.stages.requests import Train
from rela.stages.train.train import train
from rela.stages.workspace.workspace import Workspace
from rela.training.two_stage import TwoStage, target_loss

_EVERY = 10  # steps


def main() -> None:
    """One line for each algorithm."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("dataset")
    parser.add_argument("--prior", required=True, help="representations of the data set")
    parser.add_argument("--model", default="timm:test_resnet")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--workspace", type=Path, default=Path("workspace"))
    parser.add_argument("--methods", nargs="+", default=[m for m in METHODS if m != "none"])
    chosen = parser.parse_args()
    for method in chosen.methods:
        found = ratios(chosen, method)
        mean = statistics.geometric_mean(found)
        print(f"{method:12} {mean:7.2f}  ({len(found)} steps)", flush=True)


def ratios(chosen: argparse.Namespace, method: str) -> list[float]:
    """Norm of the algorithm's gradient over that of the target loss, in steps of one training."""
    found: list[float] = []
    original = TwoStage.training_step

    def measured(self: TwoStage, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        if self.stage == 2 and self._steps_seen % _EVERY == 0:
            found.append(_ratio(self, batch))
        return original(self, batch, batch_idx)

    TwoStage.training_step = measured  # type: ignore[method-assign]
    try:
        request = Train(
            dataset=chosen.dataset, prior=chosen.prior, model=chosen.model, method=method,
            image_size=chosen.image_size, batch_size=chosen.batch_size, epochs=1, devices="1",
            logger="none", name=f"gradient-sizes-{method}",
        )  # fmt: skip
        train(Workspace(chosen.workspace), request, lambda line: None)
    finally:
        TwoStage.training_step = original  # type: ignore[method-assign]
    if not found:
        raise SystemExit(f"the run gradient-sizes-{method} exists; remove it to measure again")
    return found


def _ratio(module: TwoStage, batch: dict[str, Any]) -> float:
    views = [module.normalize(view) for view in batch["views"]]
    weights = [p for p in module.method.backbone.parameters() if p.requires_grad]
    objective, features = module.method(views, batch["label"], module.progress)
    assert module.head is not None
    targets = batch["targets"][: len(features)]
    losses = objective, target_loss([module.head(f) for f in features], targets)
    norms = []
    for loss in losses:
        gradients = torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True)
        squares = [g.double().square().sum() for g in gradients if g is not None]
        norms.append(float(torch.stack(squares).sum().sqrt()))
    return norms[0] / norms[1]


if __name__ == "__main__":
    main()
