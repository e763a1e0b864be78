"""Networks of the caller's own code, from Python: as priors, and as models to train.

Covers: what a transform becomes; the features, compared with the transform and the network themselves; keys;
weights given and drawn; resuming; and what each command says without the code.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import Rela
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms
from torchvision.models import ResNet18_Weights
from torchvision.transforms import v2

import rela as library
from rela.errors import ChoiceError
from rela.models.own_code.networks import register, registered
from rela.models.preprocessing import Preprocessing
from rela.models.transform import preprocessing_of, transform_of
from rela.stages.workspace.run import read_config

HALF = (0.5, 0.5, 0.5)
CROP = [transforms.Resize(20), transforms.CenterCrop(16), transforms.ToTensor()]
SEEN = transforms.Compose([*CROP, transforms.Normalize(HALF, HALF)])
SMALL: dict[str, Any] = {"image_size": 16, "batch_size": 8, "epochs": 1, "logger": "none"}


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 16, 3, 2), nn.BatchNorm2d(16), nn.ReLU())

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images).mean((2, 3))


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rela.models.own_code.networks._REGISTERED", {})


@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        (SEEN, Preprocessing(20, 16, "bilinear", HALF, HALF)),
        (transforms.Compose(CROP), Preprocessing(20, 16, "bilinear", (0, 0, 0), (1, 1, 1))),
        (Preprocessing(9, 8), Preprocessing(9, 8)),
        (transform_of(Preprocessing(9, 8, "bicubic")), Preprocessing(9, 8, "bicubic")),
        (ResNet18_Weights.DEFAULT.transforms(), Preprocessing(256, 224)),
        (
            v2.Compose(
                [
                    *(v2.ToImage(), v2.Resize([20], v2.InterpolationMode.BICUBIC), v2.CenterCrop(16)),
                    *(v2.ToDtype(torch.float32, scale=True), v2.Normalize(HALF, HALF)),
                ]
            ),
            Preprocessing(20, 16, "bicubic", HALF, HALF),
        ),
        (transforms.Resize((20, 20)), "shorter side"),
        (transforms.Compose([transforms.RandomCrop(16), *CROP]), "RandomCrop"),
        (transforms.Compose([CROP[1], CROP[0], CROP[2]]), "Resize"),
        (transforms.Compose([transforms.Resize(8), *CROP[1:]]), "found Resize"),
        (v2.ToDtype(torch.float32), "must scale"),
        (lambda image: image, "function"),
        (3, "int"),
    ],
)  # fmt: skip
def test_a_transform_is_read_or_refused(transform: Any, expected: Preprocessing | str):
    if isinstance(expected, Preprocessing):
        assert preprocessing_of(transform) == expected
    else:
        with pytest.raises(
            ChoiceError, match=f"cannot be reproduced .*{expected}.*expected Resize"
        ):
            preprocessing_of(transform)


def fresh_name() -> str:
    return "no network"


def test_the_code_and_the_weights_are_the_identity():
    one = Tiny()
    assert registered(register(one)).identified == registered(register(Tiny())).identified
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(one.layers[0], "stride", (1, 1))
        assert registered(register(one)).identified != registered(register(Tiny())).identified
    assert registered(register(Tiny)).identified != registered(register(one)).identified
    for other, says in (
        (lambda: 3, "name ="),
        (len, "cannot be called"),
        (fresh_name, "str, expected a torch"),
    ):
        with pytest.raises(ChoiceError, match=says):
            register(other)


def test_a_module_is_a_prior_and_its_features_are_its_own(rela: Rela, small_tree: Path):
    rela("convert", small_tree, "--name", "images")
    module = Tiny().eval()
    made = library.embed(prior=module, preprocessing=SEEN, name="pathology", dtype="float32")
    assert made.artifact is not None
    features = library.open_representations("module:pathology")
    path = features.paths[5]
    image = Image.open(small_tree / path).convert("RGB")
    with torch.no_grad():
        expected = module(SEEN(image)[None])[0]
    np.testing.assert_allclose(features[path], expected, atol=1e-3)
    assert library.embed(prior=module, preprocessing=SEEN, name="pathology", dtype="float32").cached
    with torch.no_grad():
        module.layers[0].weight.add_(1)
    assert not library.embed(prior=module, preprocessing=SEEN, name="other", dtype="float32").cached
    _forget()
    assert (
        "already exist" in rela("embed", "--prior", "module:pathology", "--dtype", "float32").output
    )
    said = rela("embed", "--prior", "module:pathology", "--split", "val", exit_code=2).stderr
    assert "rela.register(NETWORK, name='pathology')" in said
    assert "the source as the caller gave it" in rela("priors", "list").stdout
    with pytest.raises(ChoiceError, match="describe a prior that is a module"):
        library.embed(prior="resnet18", preprocessing=SEEN)


def _forget() -> None:
    """As in another process."""
    from rela.models.own_code import networks

    networks._REGISTERED.clear()


def test_a_module_is_trained_resumed_and_exported_with_its_code(
    rela: Rela, small_tree: Path, monkeypatch: pytest.MonkeyPatch
):
    rela("convert", small_tree, "--name", "images")
    begun: list[dict[str, Tensor]] = []

    def stop(trainer: Any, module: Any, *others: Any) -> None:
        begun.append({k: v.clone() for k, v in module.method.backbone.state_dict().items()})
        raise KeyboardInterrupt

    torch.manual_seed(7)
    own, names = Tiny(), ("given", "drawn")
    models = dict(zip(names, (own, Tiny), strict=True))
    with monkeypatch.context() as patch:
        patch.setattr("rela.training.run._fit", stop)
        for name in names:
            with pytest.raises(KeyboardInterrupt):
                library.train(prior="none", model=models[name], name=name, **SMALL)
        with pytest.raises(KeyboardInterrupt):
            library.train(prior="none", model=Tiny, name="seed", seed=1, **SMALL)
    given, drawn, other_seed = (state["layers.0.weight"] for state in begun)
    assert given.equal(own.layers[0].weight)
    assert not drawn.equal(given)
    assert not drawn.equal(other_seed)
    keys = {read_config(Path("workspace/runs") / n).fingerprint for n in (*names, "seed")}
    assert len(keys) == 3
    _forget()
    said = rela("train", "--resume", "--name", "drawn", exit_code=2).stderr
    assert "rela.register(NETWORK, name='Tiny')" in said
    messages: list[str] = []
    run = library.train(prior="none", model=Tiny, name="drawn", say=messages.append, **SMALL)
    assert "resuming the interrupted run drawn" in messages
    assert run.artifact.model.startswith("module:Tiny#")
    library.export("drawn", output="drawn.safetensors")
    _forget()
    assert "name='Tiny'" in rela("export", "drawn", "--to", "onnx", exit_code=2).stderr
    library.register(Tiny)
    said = rela("export", "drawn", "--to", "timm", exit_code=2).stderr
    assert "timm does not have; supported: --to safetensors, onnx" in said
    trained, exported = (library.load_backbone(x).module for x in ("drawn", "drawn.safetensors"))
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(trained(images), exported(images))
    register(Tiny())  # other weights do not matter for the code of the other run
    assert library.resume("given", say=messages.append).artifact.model != run.artifact.model


def test_printed_commands_of_own_code_say_what_they_need(rela: Rela, small_tree: Path):
    rela("convert", small_tree, "--name", "images")
    said: list[str] = []
    made = library.embed(prior=Tiny(), preprocessing=SEEN, say=said.append).artifact
    assert made is not None
    assert (
        made.manifest.provenance["code"]
        == "identified by a digest of its source, as the caller gave it"
    )
    needs = "` (after rela.register(NETWORK, name='Tiny') in Python)"
    assert f"--split val{needs}" in rela("neighbors", "--duplicates").stderr
    library.neighbors(duplicates=True, say=said.append)
    assert said[-1].endswith("embeds val, too") and f"--split val{needs}" in said[-1]
    with pytest.raises(ChoiceError) as caught:
        library.train(prior="module:Tiny", crops=2)
    assert f"--crops 2{needs} first" in str(caught.value)
    assert (
        f"--crops 2{needs} first"
        in rela("train", "--prior", "module:Tiny", "--crops", 2, exit_code=2).stderr
    )
    run = library.train(prior="none", model=Tiny, name="own", **SMALL).artifact
    assert run.manifest.provenance["code"].endswith("as the caller gave it")
    (made.path / "representations.h5").write_bytes(b"")
    assert (
        f"--prior module:Tiny --image-size 16{needs}"
        in rela("cache", "verify", exit_code=65).stdout
    )
