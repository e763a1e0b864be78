"""The anchor: stage 2 of rela.training.two_stage keeps the target loss as an auxiliary.

- it is added with its weight, after a hand-over and from the start alike;
- the target of an image is then the mean over its crops, beside the algorithm's own views.
"""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from two_stage_modules import (
    BYOL_VIEWS,
    LIGHTNING_WARNS,
    NUM_IMAGES,
    SIZE,
    TARGET_WIDTH,
    beton,
    fit,
    make_module,
    targets,
)

from rela.data.beton.reader import Beton
from rela.data.loader import ViewLoader
from rela.data.views import stage1_views
from rela.methods.method import Progress
from rela.training.handover import FixedHandOver

__all__ = ["beton", "make_module", "targets"]  # fixtures
pytestmark = LIGHTNING_WARNS


@pytest.mark.parametrize("has_stage1", [True, False])
def test_an_anchor_adds_the_target_loss_to_the_algorithms(
    make_module, targets: Tensor, has_stage1: bool
):
    module, loader = make_module(handover=FixedHandOver(1), anchor=0.25)
    if not has_stage1:
        module.stage, module.handover = 2, None
        module.load_for_stage2()
    seen: list[tuple[dict[str, Any], float]] = []
    forward = module.method.forward

    def record(views: list[Tensor], labels: Tensor, progress: Progress):
        result = forward(views, labels, progress)
        seen.append((result[0].detach(), [f.detach() for f in result[1]]))
        return result

    module.method.forward = record
    step = module.training_step

    def check(batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        stage, result = module.stage, step(batch, batch_idx)
        if stage == 2:
            assert module.head is not None
            objective, features = seen[-1]
            wanted = targets[batch["index"]].double()
            cosines = [
                torch.nn.functional.cosine_similarity(module.head(f).double(), wanted).mean()
                for f in features
            ]
            expected = objective.double() + 0.25 * (1 - (cosines[0] + cosines[1]) / 2)
            assert result["loss"].item() == pytest.approx(expected.item(), abs=1e-5)
            assert torch.equal(result["objective"], objective)
        return result

    module.training_step = check
    batches = fit(module, loader, epochs=2).batches
    assert len(seen) == (5 if has_stage1 else 6)
    assert all("targets" in batch for batch in batches)


def test_after_the_hand_over_the_target_of_an_image_is_the_mean_of_its_crops(beton: Beton):
    values = torch.randn(NUM_IMAGES * 3, TARGET_WIDTH, generator=torch.Generator().manual_seed(1))
    crops = np.zeros((NUM_IMAGES, 3, 5), np.uint16)
    crops[:, :, 2:4] = SIZE
    loader = ViewLoader(beton, stage1_views(SIZE), 4, targets=values.half(), crops=crops)
    loader.set_views(BYOL_VIEWS, with_targets=True)
    plain = ViewLoader(beton, BYOL_VIEWS, 4)
    means = values.half().float().reshape(NUM_IMAGES, 3, TARGET_WIDTH).mean(1)
    for batch, expected in zip(loader, plain, strict=True):
        assert all(map(torch.equal, batch["views"], expected["views"]))
        for found in batch["targets"]:
            torch.testing.assert_close(found, means[batch["index"]])
