"""Number against number: what the published ReLA code does (settings and formulas of arXiv 2405.14669).

Each figure is recomputed here by other means: numpy and scipy in float64, plain torch loops, Pillow and
lightly's own transforms on the same images.

- targets: PCA and standardisation, up to the sign of a component;
- stage 1: its loss, its fixed linear layer, the momentum network's 0.99; AdamW's settings;
- the distributions of views: moments and two-sample tests against lightly;
- the linear evaluation protocol.

The hand-over step on given loss curves: test_handover. The data ratio: test_loader.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from command_line import Rela
from lightly.transforms.byol_transform import BYOLView1Transform, BYOLView2Transform
from numpy.typing import NDArray
from pictures import MakeTree, picture
from PIL import Image
from scipy.linalg import eigh
from scipy.stats import ks_2samp
from torch import nn
from two_stage_modules import LIGHTNING_WARNS, fit

from rela.data.beton.encoding import Encoding
from rela.data.beton.reader import Beton, open_beton
from rela.data.beton.writer import write_beton
from rela.data.loader import ViewLoader
from rela.data.views import NORMALIZE_MEAN, NORMALIZE_STD, View, stage1_views
from rela.evaluation import linear
from rela.evaluation.protocols import REFERENCE_PROTOCOL
from rela.methods.byol import BYOL
from rela.methods.method import MethodOptions
from rela.models.backbones import build_backbone
from rela.sources.source import Sample
from rela.stages.train.resolve import resolve_hyperparameters
from rela.training.settings import ResolvedSettings, TrainSettings

pytestmark = LIGHTNING_WARNS

# Targets


def test_targets_are_standardised_principal_components_up_to_sign(
    rela: Rela, make_tree: MakeTree, tmp_path: Path
):
    tree = make_tree({f"class/{i:03d}.png": (16, 16) for i in range(60)})
    rela("convert", tree)
    rela("embed", "--prior", "random:resnet18", "--image-size", 32, "--dtype", "float32")
    rela("train", "--model", "shufflenet_v2_x0_5", "--image-size", 32, "--epochs", 1,
         "--batch-size", 20, "--method", "none", "--target-width", 9999)  # fmt: skip
    (representations,) = tmp_path.glob("workspace/representations/*/representations.h5")
    (targets,) = tmp_path.glob("workspace/targets/*/targets.h5")
    with h5py.File(representations) as file:
        raw = file["representations"][()].astype(np.float64)
    with h5py.File(targets) as file:
        found = file["representations"][()].astype(np.float64)

    centred = raw - raw.mean(axis=0)
    eigenvalues, vectors = eigh(centred.T @ centred / (len(raw) - 1))
    order = eigenvalues.argsort()[::-1][: found.shape[1]]
    scores = centred @ vectors[:, order]
    expected = (scores - scores.mean(axis=0)) / scores.std(axis=0, ddof=1)
    clear = eigenvalues[order] > 1e-4 * eigenvalues.max()  # beyond, neighbours may swap
    assert clear.sum() >= 10
    signs = np.sign((found * expected).sum(axis=0))
    np.testing.assert_allclose(found[:, clear], (expected * signs)[:, clear], atol=5e-3)


# Stage 1


def default_settings(**changes: Any) -> ResolvedSettings:
    settings = TrainSettings(
        **{"model": "resnet18", "image_size": 32, "hyperparameters": "reference", **changes}
    )
    return ResolvedSettings(**vars(resolve_hyperparameters(settings, labelled=True)))


@pytest.mark.parametrize("method", ["byol", "dino"])
def test_the_optimizer_is_adamw_with_the_references_numbers(method: str):
    from rela.methods.optimizers import build_optimizer, build_schedule

    settings = default_settings(method=method, batch_size=512).optimizer_settings
    backbone = build_backbone("resnet18", 32, seed=0)
    optimizer = build_optimizer(settings, backbone.parameters())
    plain = torch.optim.AdamW(backbone.parameters(), lr=1e-3, weight_decay=0.01)
    assert isinstance(optimizer, torch.optim.AdamW)
    (group,), (expected,) = optimizer.param_groups, plain.param_groups
    for name in ("lr", "betas", "eps", "weight_decay", "amsgrad", "maximize"):
        assert group[name] == expected[name], name
    assert len(group["params"]) == len(expected["params"])  # biases and norms decay, too
    assert build_schedule(settings, optimizer, 1000, 10) is None  # a constant rate
    assert settings.clip_norm is None


def test_stage_one_is_a_plain_loop_over_the_cosine_loss(tmp_path: Path):
    """Three steps of training by hand give the weights that TwoStage gives."""
    from rela.methods.optimizers import OptimizerSettings
    from rela.training.handover import FixedHandOver
    from rela.training.two_stage import TwoStage

    beton = write_pictures(tmp_path, 12, 8)
    torch.manual_seed(0)
    targets = torch.randn(12, 5).half()
    loader = ViewLoader(beton, stage1_views(8), 4, seed=3, targets=targets)
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 16))
    method = BYOL(backbone, MethodOptions(16, 8, 12, hyperparameters="reference"))
    settings = OptimizerSettings("adamw", 1e-3, 0.01, "constant", decay_all=True)
    module = TwoStage(method, loader, settings, 3, FixedHandOver(99), target_width=5)
    assert module.head is not None

    W, b = (p.detach().double().clone() for p in (module.head.weight, module.head.bias))
    copy = nn.Linear(3 * 8 * 8, 16).double()
    copy.load_state_dict({k: v.double() for k, v in backbone[1].state_dict().items()})
    momentum = [p.detach().clone() for p in copy.parameters()]
    adamw = torch.optim.AdamW(copy.parameters(), lr=1e-3, weight_decay=0.01)
    mean, std = (
        torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (NORMALIZE_MEAN, NORMALIZE_STD)
    )
    for batch in loader:
        y = targets[batch["index"]].double()
        losses = []
        for view in batch["views"]:
            h = copy(((view.double() / 255 - mean) / std).flatten(1))
            prediction = h @ W.T + b
            cosine = (prediction * y).sum(1) / prediction.norm(dim=1) / y.norm(dim=1)
            losses.append((1 - cosine).mean())
        adamw.zero_grad()
        torch.autograd.backward((losses[0] + losses[1]) / 2)
        adamw.step()
        momentum = [
            0.99 * m + 0.01 * p.detach() for m, p in zip(momentum, copy.parameters(), strict=True)
        ]

    fit(module, loader, epochs=1)
    for found, expected in zip(backbone[1].parameters(), copy.parameters(), strict=True):
        np.testing.assert_allclose(found.detach(), expected.detach(), atol=2e-6)
    followed = list(method.momentum_backbone[1].parameters())
    for found, expected in zip(followed, momentum, strict=True):
        np.testing.assert_allclose(found, expected, atol=2e-6)
    assert torch.equal(module.head.weight.double(), W)  # the reference never trains W
    assert torch.equal(module.head.bias.double(), b)


def test_w_is_fixed_and_the_hand_over_adaptive_unless_asked_otherwise():
    assert TrainSettings().head == "fixed"
    assert default_settings().handover is None and default_settings().anchor == 0
    assert (TrainSettings().epochs, TrainSettings().batch_size) == (100, 128)


# Views

SIZE, STORED, DRAWS, P_VALUE = 40, 48, 1200, 1e-4


def write_pictures(root: Path, count: int, side: int) -> Beton:
    for i in range(count):
        grain = np.random.default_rng(i).integers(0, 40, (side, side, 1), np.uint8)  # to be blurred
        Image.fromarray(picture(i, side, side) // 4 * 3 + grain).save(root / f"{i}.png")
    samples = [Sample(f"{i}.png", 0) for i in range(count)]
    write_beton(root / "images.beton", root, samples, Encoding("raw"), num_workers=1)
    return open_beton(root / "images.beton")


STATISTICS: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "red": lambda x: x[:, 0].mean(axis=(1, 2)),
    "blue": lambda x: x[:, 2].mean(axis=(1, 2)),
    "brightness": lambda x: x.mean(axis=(1, 2, 3)),
    "contrast": lambda x: x.mean(axis=1).std(axis=(1, 2)),
    "saturation": lambda x: (x.max(axis=1) - x.min(axis=1)).mean(axis=(1, 2)),
    "sharpness": lambda x: np.log(np.abs(np.diff(x.mean(axis=1), axis=2)).mean(axis=(1, 2)) + 1e-4),
    "left to right": lambda x: (x[..., SIZE // 2 :] - x[..., : SIZE // 2]).mean(axis=(1, 2, 3)),
}


def ours(beton: Beton, view: View, draws: int) -> NDArray[np.float64]:
    """Views of the first image in [0, 1], float64 [draws, 3, SIZE, SIZE]."""
    first = np.zeros(draws, np.int64)  # as many samples, all of the same bytes
    columns = ("pointers", "sizes", "modes", "heights", "widths", "labels")
    copies = {name: getattr(beton, name)[first] for name in columns}
    (batch,) = ViewLoader(replace(beton, **copies), (view,), draws)
    return (batch["views"][0].numpy() / 255.0).round(4)


def lightlys(image: Image.Image, transform: Any, draws: int) -> NDArray[np.float64]:
    torch.manual_seed(0)
    np.random.seed(0)
    mean, std = (np.array(v).reshape(3, 1, 1) for v in (NORMALIZE_MEAN, NORMALIZE_STD))
    return np.stack([transform(image).numpy() * std + mean for _ in range(draws)]).round(4)


STAGE1_TRANSFORM = BYOLView1Transform(
    SIZE, cj_bright=0.8, cj_contrast=0.8, cj_sat=0.8, cj_hue=0.2, min_scale=0.5, gaussian_blur=0.0
)
BYOL_VIEWS = BYOL(nn.Identity(), MethodOptions(8, SIZE)).views()


@pytest.mark.parametrize(
    ("view", "transform"),
    [
        (stage1_views(SIZE)[0], STAGE1_TRANSFORM),
        (BYOL_VIEWS[0], BYOLView1Transform(SIZE)),
        (BYOL_VIEWS[1], BYOLView2Transform(SIZE)),
    ],
    ids=["stage 1", "BYOL, first view", "BYOL, second view"],
)
def test_views_are_distributed_as_lightlys(tmp_path: Path, view: View, transform: Any):
    """The same image through both; each statistic of the views by a Kolmogorov–Smirnov test."""
    beton = write_pictures(tmp_path, 1, STORED)
    found = ours(beton, view, DRAWS)
    expected = lightlys(Image.open(tmp_path / "0.png"), transform, DRAWS)
    for name, statistic in STATISTICS.items():
        a, b = statistic(found), statistic(expected)
        error = math.sqrt(a.var() / len(a) + b.var() / len(b))
        assert abs(a.mean() - b.mean()) < 4 * error, f"mean of {name}"
        assert a.std() / b.std() == pytest.approx(1, abs=0.1), f"spread of {name}"
        assert ks_2samp(a, b, method="asymp").pvalue > P_VALUE, f"distribution of {name}"


def test_the_two_sample_test_would_notice(tmp_path: Path):
    """Half the hue, a blur more often, a smaller crop, another flip: each is noticed."""
    beton = write_pictures(tmp_path, 1, STORED)
    right = stage1_views(SIZE)[0]
    found = ours(beton, right, 4 * DRAWS)
    for change in (
        {"hue": 0.1}, {"blur_probability": 0.2}, {"scale": (0.35, 1.0)}, {"flip_probability": 0.4},
        {"gray_probability": 0.3}, {"jitter_probability": 0.7}, {"solarize_probability": 0.1},
        {"brightness": 0.6}, {"contrast": 0.6}, {"saturation": 0.4},
    ):  # fmt: skip
        other = ours(beton, replace(right, **change), 4 * DRAWS)
        p = min(ks_2samp(s(found), s(other), method="asymp").pvalue for s in STATISTICS.values())
        assert p < P_VALUE, change


# Linear evaluation


def test_the_linear_protocol_is_adam_at_a_constant_rate(monkeypatch: pytest.MonkeyPatch):
    """The layer's weights after training equal a plain loop's; the last epoch counts, not the best."""
    rng = np.random.default_rng(0)
    labels = torch.from_numpy(np.arange(300) % 4)
    features = torch.from_numpy(rng.standard_normal((300, 6))).float() + labels[:, None] * 0.5
    steps: list[float] = []
    plain_step = torch.optim.Adam.step

    def counted(self: torch.optim.Adam, *arguments: Any, **options: Any) -> Any:
        (group,) = self.param_groups
        assert (group["betas"], group["eps"], group["weight_decay"]) == ((0.9, 0.999), 1e-8, 0)
        steps.append(group["lr"])
        return plain_step(self, *arguments, **options)

    monkeypatch.setattr(torch.optim.Adam, "step", counted)
    protocol = REFERENCE_PROTOCOL
    assert (protocol.lr, protocol.epochs, protocol.batch_size) == (3e-4, 100, 128)
    linear.linear_probe(features, labels, features, labels, 4, protocol)
    assert steps == [3e-4] * (100 * 3)  # ⌈300 / 128⌉ batches: the last, smaller one counts
