"""Files as priors (rela.priors.checkpoint_file), and the layer of any prior.

- a checkpoint with --arch is that model with these weights; without, the error says to add it;
- TorchScript runs only if it is trusted, gives [B, D] or the mean of maps, and is known by the file's
  SHA-256; other outputs are named;
- the layer is part of a prior's identity, of runs too;
- on the command line: what was found is said, refusals have exit status 77, and a second call hits.
"""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import pytest
import torch
from command_line import Rela
from safetensors.torch import load_file
from torch import Tensor, nn

from rela.errors import ChoiceError, DataError, UnavailableError, UnsafeError
from rela.models.backbones import build_backbone
from rela.models.preprocessing import preprocessing_for
from rela.models.weights import save_weights, state_sha256
from rela.priors import PriorIdentity, PriorRequest, resolve
from rela.priors.earlier_run import BACKBONE_FILE

NAME = "shufflenet_v2_x0_5"
Scripted = Callable[[str], Path]
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")


def batch(size: int = 32) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(3))


class Wrapped(nn.Module):
    """A small network whose output has the asked-for form."""

    def __init__(self, form: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.form, self.conv = form, nn.Conv2d(3, 4, 3)

    def forward(self, images: Tensor):
        maps = self.conv(images)
        return {
            "maps": maps,
            "features": maps.amax((2, 3)),
            "tokens": maps.flatten(2),
            "tuple": (maps, maps),
            "dict": {"out": maps},
        }[self.form]


@pytest.fixture
def scripted(tmp_path: Path) -> Scripted:
    """scripted("maps") → a TorchScript file."""

    def write(form: str) -> Path:
        path = tmp_path / f"{form}.pt"
        traced = torch.jit.trace(Wrapped(form).eval(), batch(), strict=False)
        torch.jit.save(traced, path)
        return path

    return write


@torch.no_grad()
@pytest.mark.parametrize("arch", ["resnet18_small", NAME, "timm:test_vit"])
def test_a_checkpoint_loads_as_the_given_architecture(tmp_path: Path, arch: str):
    size = 160 if arch.startswith("timm:") else 32
    plain = build_backbone(arch, size, seed=1).eval()
    state = {f"backbone.{key}": value for key, value in plain.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "mine.ckpt")
    request = PriorRequest(f"file:{tmp_path}/mine.ckpt", arch=arch, image_size=size, resizes=True)
    prior = resolve(request)
    if arch == "resnet18_small":  # nothing is published
        assert prior.identity.preprocessing == preprocessing_for(size)
    assert prior.identity.image_size == size
    assert (prior.identity.name, prior.identity.arch) == ("mine.ckpt", arch)
    assert prior.identity.weights_sha256 == state_sha256(plain.state_dict())
    assert prior.weights_file == tmp_path / "mine.ckpt"
    torch.testing.assert_close(prior.load()(batch(size)), plain(batch(size)))


def test_the_same_weights_are_the_same_prior_however_they_are_named(tmp_path: Path):
    torch.save(build_backbone(NAME, 32, seed=1).state_dict(), tmp_path / "mine.pth")
    by_file = resolve(PriorRequest(f"file:{tmp_path}/mine.pth", arch=NAME))
    by_name = resolve(PriorRequest(NAME, weights=tmp_path / "mine.pth"))
    assert by_file.identity.key() == by_name.identity.key()


def test_the_file_of_a_run_records_its_architecture_and_preprocessing(tmp_path: Path):
    """A torchvision architecture that was trained on small images is not shown large ones."""
    path = tmp_path / "first" / BACKBONE_FILE
    path.parent.mkdir()
    save_weights(path, build_backbone(NAME, 32, seed=1), {"arch": NAME, "image_size": "32"})
    for arch in (None, NAME):
        identity = resolve(PriorRequest(f"file:{path}", arch=arch)).identity
        assert (identity.arch, identity.name) == (NAME, "first.safetensors")
        assert identity.preprocessing == preprocessing_for(32)
    larger = resolve(PriorRequest(f"file:{path}", image_size=96, resizes=True, mean="0.5"))
    expected = replace(preprocessing_for(96), mean=(0.5, 0.5, 0.5))
    assert larger.identity.preprocessing == expected
    save_weights(path, build_backbone(NAME, 32, seed=1), {"arch": 3, "image_size": "x"})
    with pytest.raises(ChoiceError, match="add --arch"):
        resolve(PriorRequest(f"file:{path}"))


@pytest.mark.parametrize(
    ("request_of", "error", "message"),
    [
        (lambda p: PriorRequest(f"file:{p}"), ChoiceError, "add --arch"),
        (lambda p: PriorRequest(f"file:{p}.gone"), UnavailableError, "no such weights file"),
        (lambda p: PriorRequest(f"file:{p}", weights=p), ChoiceError, "contradicts"),
        (lambda p: PriorRequest(f"file:{p}", arch="resnet81"), ChoiceError, "resnet18"),
        (lambda p: PriorRequest(f"file:{p}", arch="resnet18"), DataError, "does not fit"),
        (lambda p: PriorRequest("resnet18", arch="resnet50"), ChoiceError, "--arch resnet50"),
        (lambda p: PriorRequest("resnet18", encoder="teacher"), ChoiceError, "--encoder teacher"),
    ],
)
def test_contradictions_are_refused(tmp_path: Path, request_of, error: type, message: str):
    torch.save(build_backbone(NAME, 32, seed=1).state_dict(), tmp_path / "mine.pth")
    with pytest.raises(error, match=message):
        resolve(request_of(tmp_path / "mine.pth"))


# TorchScript


@torch.no_grad()
@pytest.mark.parametrize("form", ["features", "maps"])
def test_trusted_code_gives_its_features(scripted: Scripted, form: str):
    path = scripted(form)
    prior = resolve(PriorRequest(f"file:{path}", image_size=32, trust_code=True))
    maps = Wrapped("maps").eval()(batch())
    expected = maps.amax((2, 3)) if form == "features" else maps.mean((2, 3))
    torch.testing.assert_close(prior.load()(batch()), expected)
    identity = prior.identity
    assert identity.weights_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (identity.name, identity.image_size, identity.feature_dim) == (f"{form}.pt", 32, 4)


@pytest.mark.parametrize(
    ("form", "what"),
    [("tuple", "a tuple of 2"), ("dict", "a dict of 1"), ("tokens", r"a tensor \[2, 4, 900\]")],
)
def test_other_outputs_are_named(scripted: Scripted, form: str, what: str):
    with pytest.raises(DataError, match=what):
        resolve(PriorRequest(f"file:{scripted(form)}", image_size=32, trust_code=True))


def test_untrusted_code_is_not_opened(scripted: Scripted, monkeypatch: pytest.MonkeyPatch):
    path, opened = scripted("features"), []
    monkeypatch.setattr(torch.jit, "load", lambda *a, **k: opened.append(a))
    for request in (PriorRequest(f"file:{path}"), PriorRequest(NAME, weights=path)):
        with pytest.raises(UnsafeError, match=r"--trust-code") as caught:
            resolve(request)
        assert hashlib.sha256(path.read_bytes()).hexdigest() in str(caught.value)
    assert not opened


def test_torchscript_has_no_layers(scripted: Scripted):
    of_code = {"image_size": 32, "trust_code": True, "layer": "script.conv"}
    with pytest.raises(ChoiceError, match="--layer"):
        resolve(PriorRequest(f"file:{scripted('maps')}", **of_code))


# Layers


@torch.no_grad()
def test_the_layer_is_part_of_the_identity():
    pooled, third = (
        resolve(PriorRequest("random:resnet18_small", image_size=32, layer=layer))
        for layer in ("pooled", "layer3")
    )
    assert pooled.identity.key() | {"layer": "layer3"} == third.identity.key()
    assert pooled.identity.weights_sha256 == third.identity.weights_sha256
    assert third.identity.name == "random:resnet18_small-seed0@layer3"
    assert third.identity.feature_dim == 256
    assert PriorIdentity.from_dict(third.identity.as_dict()) == third.identity
    before = {k: v for k, v in pooled.identity.as_dict().items() if k != "layer"}
    assert PriorIdentity.from_dict(before) == pooled.identity  # written by earlier versions
    assert third.load()(batch()).shape == (2, 256)


# On the command line


def test_a_checkpoint_from_convert_to_a_hit(tmp_path: Path, rela: Rela, images: Path):
    plain = build_backbone("resnet18_small", 16, seed=1)
    state = {f"backbone.{key}": value for key, value in plain.state_dict().items()}
    state["classifier.weight"] = torch.zeros(3, 512)
    torch.save({"state_dict": state}, tmp_path / "mine.ckpt")
    prior = ("--prior", f"file:{tmp_path}/mine.ckpt", "--arch", "resnet18_small")
    assert "left out: classifier.*" in rela("embed", *prior, "--layer", "layer2").output
    again = rela("embed", *prior, "--layer", "layer2").output
    assert "already exist" in again and "left out" not in again
    (path,) = tmp_path.glob("workspace/representations/*/representations.h5")
    with h5py.File(path) as file:
        assert file["representations"].shape == (24, 128)
        assert (file.attrs["layer"], file.attrs["prior"]) == ("layer2", "mine.ckpt@layer2")


def test_code_needs_trust_on_the_command_line(rela: Rela, images: Path, scripted: Scripted):
    embed = ("embed", "--prior", f"file:{scripted('features')}")
    assert "--trust-code" in rela(*embed, exit_code=77).output
    rela(*embed, "--trust-code")
    rela(*embed, exit_code=77)  # trust is not remembered


def test_a_timm_model_is_trained_loaded_and_is_a_prior(tmp_path: Path, rela: Rela, images: Path):
    run = rela(
        "train", "--prior", "none", "--model", "timm:test_vit", "--image-size", 32, "--epochs", 1,
        "--batch-size", 24, "--devices", 1, "--name", "first",
    )  # fmt: skip
    found: dict[str, nn.Module] = {}
    exec(run.stdout.partition("load it with:\n\n")[2].partition("\n\nnext: ")[0], found)
    own = build_backbone("timm:test_vit", 32).eval()
    own.load_state_dict(load_file(tmp_path / "workspace/runs/first" / BACKBONE_FILE))
    torch.testing.assert_close(found["model"].eval()(batch()), own(batch()))

    assert "24 × 128" in rela("embed", "--prior", "first", "--layer", "class+patches").output
    assert "first@class+patches" in rela("status").output
