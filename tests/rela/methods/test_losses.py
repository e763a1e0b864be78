"""Losses of rela.methods against the formulas of the publications, in float64 by plain numpy.

Projections come from the methods' own heads in training mode; what is computed from them is compared.
SimCLR, SimSiam, Barlow Twins, VICReg, MoCo v2 with its queue, MoCo v3, DINO with centre, temperatures
and local crops, SwAV with Sinkhorn and its frozen prototypes, supervised with missing labels.
"""

import numpy as np
import pytest
import torch
from lightly.loss import NTXentLoss, VICRegLoss
from numpy.typing import NDArray
from scipy.special import log_softmax, logsumexp, softmax
from tiny_methods import (
    BATCH,
    SECOND_EPOCH,
    SIZE,
    make_method,
    perturb_momentum_networks,
    shrink_dino,
    some_labels,
    some_views,
)
from torch import Tensor, nn

from rela.methods.method import Method, MethodOptions, Progress
from rela.methods.mocov3 import MoCoV3
from rela.methods.parts.vector_queue import VectorQueue

Matrix = NDArray[np.float64]


def double(values: Tensor) -> Matrix:
    return values.detach().numpy().astype(np.float64)


def unit(rows: Matrix) -> Matrix:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def loss_of(method: Method, views: list[Tensor], progress: Progress = SECOND_EPOCH) -> float:
    loss, _ = method(views, some_labels(), progress)
    return float(loss.detach())


def projections_of(method: Method, views: list[Tensor]) -> list[Matrix]:
    return [double(method.projector(method.backbone(view))) for view in views]


def momentum_projections(method: Method, views: list[Tensor]) -> list[Matrix]:
    return [double(method.momentum_projector(method.momentum_backbone(view))) for view in views]


@pytest.mark.parametrize(("size", "temperature"), [(SIZE, 0.5), (48, 0.1)])
def test_simclr_is_nt_xent(size: int, temperature: float):
    method = make_method("simclr", image_size=size)
    views = some_views(method)
    outputs = [method.projector(method.backbone(view)) for view in views]
    library = float(NTXentLoss(temperature)(*outputs).detach())
    assert loss_of(method, views) == pytest.approx(library, rel=1e-5)
    rows = unit(np.concatenate(projections_of(method, views)))
    similarities = rows @ rows.T / temperature
    np.fill_diagonal(similarities, -np.inf)
    partners = np.roll(np.arange(2 * BATCH), BATCH)
    expected = -log_softmax(similarities, axis=1)[np.arange(2 * BATCH), partners].mean()
    assert loss_of(method, views) == pytest.approx(expected, rel=1e-5)


def test_simsiam_is_the_mean_negative_cosine_without_gradient_to_the_projections():
    method = make_method("simsiam")
    views = some_views(method)
    first, second = (method.projector(method.backbone(view)) for view in views)
    predictions = [unit(double(method.predictor(z))) for z in (first, second)]
    expected = -0.5 * (
        (predictions[0] * unit(double(second))).sum(1).mean()
        + (predictions[1] * unit(double(first))).sum(1).mean()
    )
    assert loss_of(method, views) == pytest.approx(expected, rel=1e-5)
    # a predictor whose outputs do not depend on their inputs leaves no way back to the backbone
    nn.init.zeros_(method.predictor.layers[3].weight)
    loss, _ = method(views, some_labels(), SECOND_EPOCH)
    loss.backward()
    assert all(p.grad.abs().max() < 1e-7 for p in method.backbone.parameters())


def test_barlow_twins_is_the_distance_of_the_correlations_from_the_identity():
    method = make_method("barlowtwins")
    views = some_views(method)
    first, second = (
        (z - z.mean(0)) / np.sqrt(z.var(0) + 1e-5) for z in projections_of(method, views)
    )
    correlations = first.T @ second / BATCH
    weights = np.where(np.eye(len(correlations)), 1.0, 0.005)
    expected = 0.1 * (weights * (correlations - np.eye(len(correlations))) ** 2).sum()
    assert loss_of(method, views) == pytest.approx(expected, rel=1e-4)


def test_vicreg_is_the_sum_of_its_three_terms():
    method = make_method("vicreg")
    views = some_views(method)
    outputs = [method.projector(method.backbone(view)) for view in views]
    library = float(VICRegLoss()(*outputs).detach())
    assert loss_of(method, views) == pytest.approx(library, rel=1e-5)
    first, second = projections_of(method, views)
    expected = 25 * ((first - second) ** 2).mean()
    for z in (first, second):
        covariance = np.cov(z, rowvar=False)
        variances = np.diag(covariance)
        expected += 25 * np.maximum(0, 1 - np.sqrt(variances + 1e-4)).mean() / 2
        expected += ((covariance**2).sum() - (variances**2).sum()) / len(variances)
    assert loss_of(method, views) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("size", "temperature"), [(SIZE, 0.1), (48, 0.2)])
def test_mocov2_finds_the_key_among_those_of_the_two_batches_before(size: int, temperature: float):
    method = make_method("mocov2", num_images=4 * BATCH, image_size=size)
    perturb_momentum_networks(method)
    batches = [some_views(method, seed) for seed in range(4)]
    losses = [loss_of(method, views) for views in batches]
    keys = [unit(momentum_projections(method, [views[1]])[0]) for views in batches]
    queue = np.concatenate(keys[1:3])
    (queries,) = (unit(q) for q in projections_of(method, [batches[3][0]]))
    positive = (queries * keys[3]).sum(1, keepdims=True)
    logits = np.concatenate([positive, queries @ queue.T], axis=1) / temperature
    expected = (logsumexp(logits, axis=1) - logits[:, 0]).mean()
    assert losses[3] == pytest.approx(expected, rel=1e-5)
    library = NTXentLoss(temperature, memory_bank_size=(2 * BATCH, 128))
    library.memory_bank.bank = torch.from_numpy(queue).float()
    found = library(torch.from_numpy(queries).float(), torch.from_numpy(keys[3]).float())
    assert losses[3] == pytest.approx(float(found), rel=1e-5)


@pytest.mark.parametrize(
    ("num_images", "size", "expected"),
    [(1_281_167, 48, 65_536), (1_281_167, 32, 4096), (1797, 48, 898), (2, 48, 1)],
)
def test_mocov2s_queue_holds_at_most_half_an_epoch(num_images: int, size: int, expected: int):
    method = make_method("mocov2", num_images=num_images, image_size=size)
    assert method.state_dict()["queue.rows"].shape == (expected, 128)


@pytest.mark.parametrize("length", [1, 5, 8, 20])
def test_a_queue_holds_the_newest_vectors(length: int):
    queue = VectorQueue(length, 2)
    torch.testing.assert_close(queue.rows.norm(dim=1), torch.ones(length))
    pushed = torch.arange(2.0 * 3 * 8).view(3, 8, 2)
    for vectors in pushed:
        queue.push(vectors)
    newest = pushed.flatten(0, 1)[-length:]
    assert torch.equal(queue.rows[queue.rows[:, 0].argsort()], newest)
    assert torch.equal(queue.share(), queue.rows)


def test_mocov3_finds_each_key_within_the_batch():
    method = make_method("mocov3")
    perturb_momentum_networks(method)
    views = some_views(method)
    queries = [
        unit(double(method.predictor(method.projector(method.backbone(view))))) for view in views
    ]
    keys = [unit(k) for k in momentum_projections(method, views)]
    expected = sum(
        -2 * np.diag(log_softmax(queries[i] @ keys[1 - i].T, axis=1)).mean() for i in range(2)
    )
    assert loss_of(method, views) == pytest.approx(expected, rel=1e-5)


def test_mocov3_follows_the_architecture():
    resnet = make_method("mocov3")
    vit = MoCoV3(nn.Sequential(nn.Flatten(), nn.LayerNorm(12)), MethodOptions(12, 32))
    found = [
        (
            method.temperature,
            method.views()[0].scale[0],
            sum(isinstance(m, nn.Linear) for m in method.projector.modules()),
        )
        for method in (resnet, vit)
    ]
    assert found == [(1.0, 0.2, 2), (0.2, 0.08, 3)]


@pytest.mark.parametrize(
    ("kind", "num_local", "temperature"),
    [("reference", 0, 0.04), ("reference", 3, 0.04), ("paper", 8, 0.05)],
)
def test_dino_is_the_cross_entropy_with_the_centred_teacher(
    monkeypatch: pytest.MonkeyPatch, kind: str, num_local: int, temperature: float
):
    shrink_dino(monkeypatch)
    local = num_local if kind == "reference" else None
    method = make_method("dino", hyperparameters=kind, local_crops=local)
    perturb_momentum_networks(method)
    earlier, views = some_views(method, seed=1), some_views(method, seed=2)
    assert len(views) == 2 + num_local
    loss_of(method, earlier)
    centre = 0.1 * np.concatenate(momentum_projections(method, earlier[:2])).mean(0)
    progress = Progress(step=10, num_steps=100, steps_per_epoch=10)  # a third of the warm-up

    teacher = [
        softmax((t - centre) / temperature, axis=1) for t in momentum_projections(method, views[:2])
    ]
    features = [method.backbone(view) for view in views[:2]]
    if num_local:
        features += method.backbone(torch.cat(views[2:])).split(BATCH)
    outputs = torch.cat(features[2:]) if num_local else None
    student = [double(method.projector(f)) for f in features[:2]]
    if outputs is not None:
        student += [double(s) for s in method.projector(outputs).split(BATCH)]
    student = [log_softmax(s / 0.1, axis=1) for s in student]
    terms = [
        -(t * s).sum(1).mean()
        for i, t in enumerate(teacher)
        for j, s in enumerate(student)
        if i != j
    ]
    assert loss_of(method, views, progress) == pytest.approx(np.mean(terms), rel=1e-5)


def sinkhorn(scores: Matrix) -> Matrix:
    """Codes [B, K] whose rows sum to 1, after three rounds from exp(scores / 0.05)."""
    codes = np.exp(scores / 0.05)
    batch, prototypes = codes.shape
    codes /= codes.sum()
    for _ in range(3):
        codes /= codes.sum(axis=0, keepdims=True) * prototypes
        codes /= codes.sum(axis=1, keepdims=True) * batch
    return codes * batch


def test_swav_predicts_the_sinkhorn_codes_of_the_other_crops():
    method = make_method("swav", local_crops=3)
    views = some_views(method)
    features = [method.backbone(view) for view in views[:2]]
    outputs = [method.projector(f) for f in features]
    outputs += method.projector(method.backbone(torch.cat(views[2:]))).split(BATCH)
    prototypes = unit(double(method.prototypes.weight))
    scores = [unit(double(z)) @ prototypes.T for z in outputs]
    losses = []
    for i in range(2):
        codes = sinkhorn(scores[i])
        losses += [
            -(codes * log_softmax(s / 0.1, axis=1)).sum(1).mean()
            for j, s in enumerate(scores)
            if j != i
        ]
    assert loss_of(method, views) == pytest.approx(np.mean(losses), rel=1e-5)
    lengths = method.prototypes.weight.detach().norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones(3000))


@pytest.mark.parametrize(("step", "used"), [(4, False), (14, False), (15, True), (60, True)])
def test_swav_assigns_prototypes_together_with_earlier_batches(step: int, used: bool):
    """From 15 % of stage 2, but not before as many projections as the queue holds were seen."""
    method = make_method("swav", local_crops=0, num_images=4 * BATCH)
    progress = Progress(step=step, num_steps=100, steps_per_epoch=4)
    earlier = [some_views(method, seed) for seed in range(4)]
    projections = []
    for batch in earlier:
        method(batch, some_labels(), Progress(0, 100, 4))
        projections.append([unit(z) for z in projections_of(method, batch)])
    views = some_views(method, seed=9)
    prototypes = unit(double(method.prototypes.weight))
    own = [unit(z) @ prototypes.T for z in projections_of(method, views)]
    losses = []
    for i in range(2):
        old = np.concatenate([batch[i] for batch in projections]) @ prototypes.T
        codes = sinkhorn(np.concatenate([own[i], old]) if used else own[i])[:BATCH]
        losses.append(-(codes * log_softmax(own[1 - i] / 0.1, axis=1)).sum(1).mean())
    assert loss_of(method, views, progress) == pytest.approx(np.mean(losses), rel=1e-5)


def test_swavs_prototypes_stay_during_the_first_epoch_of_stage_2():
    method = make_method("swav", local_crops=0)
    loss, _ = method(some_views(method), some_labels(), SECOND_EPOCH)
    loss.backward()
    method.before_step(Progress(step=10, num_steps=100, steps_per_epoch=10))
    assert method.prototypes.weight.grad is not None
    method.before_step(Progress(step=9, num_steps=100, steps_per_epoch=10))
    assert method.prototypes.weight.grad is None
    assert method.projector.layers[0].weight.grad is not None


def test_supervised_is_the_cross_entropy_of_the_labelled_images():
    method = make_method("supervised")
    views = some_views(method)
    logits = double(method.classifier(method.backbone(views[0])))
    labels = some_labels().numpy()
    known = labels >= 0
    expected = -log_softmax(logits, axis=1)[known, labels[known]].mean()
    assert loss_of(method, views) == pytest.approx(expected, rel=1e-5)
    loss, _ = method(views, torch.full((BATCH,), -1), SECOND_EPOCH)
    assert float(loss.detach()) == 0
