"""Files that do not fit the named architecture: one of a like name is named, in the whole command.

Swin Transformers of their authors belong to timm's models, not to torchvision's of that name, and files of
torchvision do not load into timm's.
"""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision.models as tv
from published_names import swin
from torch import Tensor

from rela.errors import MisfitError
from rela.priors import PriorRequest, resolve
from rela.stages.requests import Embed, repeats_the_command


def shapes(model: torch.nn.Module) -> dict[str, Tensor]:
    """Tensors of the right shapes, half as large as they were."""
    return {k: torch.zeros(v.shape, dtype=torch.float16) for k, v in model.state_dict().items()}


def of_timm(name: str) -> dict[str, Tensor]:
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=0)
    return shapes(model)


def of_torchvision(name: str) -> dict[str, Tensor]:
    with torch.device("meta"):
        model = tv.get_model(name)
    return shapes(model)


CASES: dict[str, tuple[str, Any, str]] = {
    "swin_tiny_patch4_window7_224.pth": (
        "swin_t", lambda: swin(of_timm("swin_tiny_patch4_window7_224")), "timm:swin_tiny_patch4_window7_224"
    ),
    "mine of today.pth": ("timm:mobilenetv2_100", lambda: of_torchvision("mobilenet_v2"), "mobilenet_v2"),
}  # fmt: skip


@pytest.mark.parametrize("file", CASES)
def test_the_architecture_that_a_file_fits_is_named_in_a_command(tmp_path: Path, file: str):
    arch, make, right = CASES[file]
    torch.save(make(), tmp_path / file)
    with pytest.raises(MisfitError, match=f"it fits {right}$") as caught:
        resolve(PriorRequest(f"file:{tmp_path / file}", arch=arch))
    assert "\n" not in str(caught.value)
    instead = {"prior": f"file:{tmp_path / file}", "arch": right, "weights": None}
    assert caught.value.instead == instead
    assert resolve(PriorRequest(instead["prior"], arch=right)).identity.arch == right
    request = Embed("photos", prior=arch, weights=tmp_path / file, image_size=64, split="val")

    @repeats_the_command("embed")
    def job(workspace: None, request: Embed) -> None:
        raise caught.value

    with pytest.raises(MisfitError) as said:
        job(None, request)
    [command] = re.findall("`(.*?)`", str(said.value))
    file_of = ["--prior", f"file:{tmp_path / file}", "--arch", right]
    words = shlex.split(command)
    assert words[:3] == ["rela", "embed", "photos"] and "--weights" not in words
    assert {*file_of, "--image-size", "64", "--split", "val"} == {*words[3:]}
