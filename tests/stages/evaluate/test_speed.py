"""Sizes and speeds (rela.stages.evaluate.speed) and the comparison made of them.

Against torchvision's own model; kept, and then not measured again; a combination adds up; a model that cannot
be built is said, and so in the comparison.
"""

from pathlib import Path

import pytest
import torchvision

from rela.models.preprocessing import preprocessing_for
from rela.priors import PriorIdentity
from rela.stages.evaluate import speed
from rela.stages.evaluate.instead import Candidate, instead_of
from rela.stages.evaluate.measured import Evaluation
from rela.stages.evaluate.speed import Speed, speed_of
from rela.stages.workspace.workspace import Workspace

ARCH = "shufflenet_v2_x0_5"


def known(arch: str) -> tuple[PriorIdentity, None]:
    return PriorIdentity(arch, arch, 32, "", preprocessing_for(32), 1024), None


def test_a_model_has_torchvisions_parameters_and_is_measured_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    found = speed_of(Workspace(tmp_path), [known(ARCH)], "cpu")
    assert isinstance(found, Speed)
    model = torchvision.models.get_model(ARCH)
    model.fc = None
    assert found.num_parameters == sum(p.numel() for p in model.parameters())
    assert found.weights_bytes == sum(t.nbytes for t in model.state_dict().values())
    assert found.images_per_second > 0 and (found.image_size, found.device) == ("32", "cpu")
    monkeypatch.delattr(speed, "_backbone")
    assert speed_of(Workspace(tmp_path), [known(ARCH)], "cpu") == found
    both = speed_of(Workspace(tmp_path), [known(ARCH), known(ARCH)], "cpu")
    assert isinstance(both, Speed)
    assert both.num_parameters == 2 * found.num_parameters and both.image_size == "32+32"
    assert both.images_per_second == pytest.approx(found.images_per_second / 2)


def test_a_model_that_cannot_be_built_is_said(tmp_path: Path):
    found = speed_of(Workspace(tmp_path), [known("clip:ViT-Q")], "cpu")
    assert isinstance(found, str) and found
    prior = Evaluation(
        Path(), {"identity": {"arch": "clip:ViT-Q"}}, True, speed=found, embed_seconds=3.0
    )
    students = [Candidate(n, ARCH, found, {"knn20": top1}) for n, top1 in (("a", 0.5), ("b", 0.6))]
    [beside] = instead_of("prior q", prior, {"knn20": 0.9}, students)
    assert beside.student.name == "b"
    assert beside.lines() == [
        "why not just use prior q?",
        f"  prior q: size and speed are not known ({found}); embedding took 3.0 s",
        f"  b ({ARCH}): size and speed are not known ({found})",
    ]
