"""Priors (rela.priors) against torchvision's own models.

- random priors: the seed is their identity;
- weights from a file: features equal torchvision's model without its last layer, whatever the number
  of classes, old DenseNet names and the input transform of the Inceptions included;
- published weights: taken from torch's cache, strictly; without a network the error says which file
  to fetch from where and where to put it;
- the preprocessing is the preset that torchvision ships with the weights.
"""

import hashlib
import re
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torchvision.models as tv
from damages import flip_bit
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

import rela.priors.torchvision
from rela.errors import ChoiceError, DataError, UnavailableError
from rela.models.backbones import build_backbone
from rela.models.preprocessing import preprocessing_for
from rela.models.weights import save_weights
from rela.priors import Prior, PriorIdentity, PriorRequest, resolve
from rela.priors.earlier_run import BACKBONE_FILE, load_backbone, read_identity, write_identity


@pytest.fixture(autouse=True)
def torch_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of weights, and no network."""

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(101, "Network is unreachable")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(socket, "create_connection", refuse)
    return tmp_path / "torch"


def torchvision_model(name: str, seed: int = 1, **options: object) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return tv.get_model(name, weights=None, **options).eval()


def images(size: int) -> Tensor:
    return torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(2))


def features(prior: Prior, size: int) -> Tensor:
    with torch.no_grad():
        return prior.load()(images(size))


# Random priors


def test_the_seed_of_a_random_prior_is_its_identity():
    first, again, other = (
        resolve(PriorRequest("random:resnet18_small", seed=seed, image_size=32)).identity
        for seed in (0, 0, 1)
    )
    assert first == again
    assert first.key() != other.key()
    assert first.feature_dim == 512


def test_a_random_prior_is_not_the_student_of_the_same_seed():
    prior = resolve(PriorRequest("random:resnet18_small", seed=3, image_size=32)).load()
    student = build_backbone("resnet18_small", 32, seed=3)
    assert not torch.equal(prior.conv1.weight, student.conv1.weight)


def test_a_random_prior_is_the_untrained_architecture_in_eval_mode():
    prior = resolve(PriorRequest("random:resnet18", seed=4, image_size=32))
    reference = torchvision_model("resnet18", seed=2**31 + 4)
    reference.fc = nn.Identity()
    assert not prior.load().training
    torch.testing.assert_close(features(prior, 32), reference(images(32)).detach())


# Weights from a file


@pytest.mark.parametrize("num_classes", [1000, 10])
def test_features_from_a_file_equal_torchvisions_own(tmp_path: Path, num_classes: int):
    model = torchvision_model("resnet18", num_classes=num_classes)
    torch.save(model.state_dict(), tmp_path / "mine.pth")
    prior = resolve(PriorRequest("resnet18", weights=tmp_path / "mine.pth"))
    model.fc = nn.Identity()
    assert not prior.load().training
    torch.testing.assert_close(features(prior, 224), model(images(224)).detach())


def test_the_same_weights_in_another_file_are_the_same_prior(tmp_path: Path):
    state = torchvision_model("resnet18").state_dict()
    torch.save(state, tmp_path / "with classifier.pth")
    backbone = {key: value for key, value in state.items() if not key.startswith("fc.")}
    save_file(backbone, tmp_path / "without.safetensors")
    first, second = (
        resolve(PriorRequest("resnet18", weights=path)) for path in sorted(tmp_path.glob("with*"))
    )
    assert first.identity.key() == second.identity.key()


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_inceptions_transform_their_input_as_their_weights_expect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    # the slow initialisation of a model whose weights come from the file
    monkeypatch.setattr(nn.init, "trunc_normal_", lambda tensor, *args, **kwargs: tensor)
    model = torchvision_model(name, transform_input=True, aux_logits=True, init_weights=False)
    torch.save(model.state_dict(), tmp_path / "mine.pth")
    prior = resolve(PriorRequest(name, weights=tmp_path / "mine.pth"))
    model.fc = nn.Identity()
    size = prior.identity.image_size
    torch.testing.assert_close(features(prior, size), model(images(size)).detach())


def test_old_densenet_files_are_understood(tmp_path: Path):
    model = torchvision_model("densenet121")
    old_names = {
        re.sub(r"(denselayer\d+)\.(norm|conv)(\d)\.", r"\1.\2.\3.", key): value
        for key, value in model.state_dict().items()
        if not key.endswith("num_batches_tracked")  # newer than these files
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old_names
    torch.save(old_names, tmp_path / "old.pth")
    prior = resolve(PriorRequest("densenet121", weights=tmp_path / "old.pth"))
    model.classifier = nn.Identity()
    torch.testing.assert_close(features(prior, 224), model(images(224)).detach())


def test_a_file_for_another_architecture_is_refused(tmp_path: Path):
    torch.save(torchvision_model("resnet34").state_dict(), tmp_path / "mine.pth")
    with pytest.raises(DataError, match=r"mine\.pth does not fit resnet18; it fits resnet34"):
        resolve(PriorRequest("resnet18", weights=tmp_path / "mine.pth"))


def test_a_small_variant_takes_weights_only_from_a_file(tmp_path: Path):
    with pytest.raises(ChoiceError, match="--weights"):
        resolve(PriorRequest("resnet18_small", image_size=32))
    backbone = build_backbone("resnet18_small", seed=3).eval()
    torch.save(backbone.state_dict(), tmp_path / "mine.pth")
    prior = resolve(PriorRequest("resnet18_small", weights=tmp_path / "mine.pth", image_size=32))
    assert prior.identity.preprocessing.crop == 32
    torch.testing.assert_close(features(prior, 32), backbone(images(32)).detach())


# Published weights


def test_without_a_network_the_error_says_what_to_fetch_and_where_to_put_it(torch_home: Path):
    url = tv.ResNet18_Weights.DEFAULT.url
    place = torch_home / "hub" / "checkpoints" / url.rpartition("/")[2]
    with pytest.raises(UnavailableError) as caught:
        resolve(PriorRequest("resnet18"))
    for words in (url, str(place), "Network is unreachable"):
        assert words in str(caught.value)


@pytest.fixture
def publish(torch_home: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """publish("resnet18", state) → as if torchvision published that, and it was downloaded."""

    def put(name: str, state: dict[str, Tensor]) -> Path:
        folder = torch_home / "hub" / "checkpoints"
        folder.mkdir(parents=True)
        torch.save(state, folder / "new.pth")
        digest = hashlib.sha256((folder / "new.pth").read_bytes()).hexdigest()
        place = (folder / "new.pth").rename(folder / f"{name}-{digest[:8]}.pth")
        weights = tv.get_model_weights(name).DEFAULT.value
        monkeypatch.setattr(weights, "url", f"https://example.org/models/{place.name}")
        return place

    return put


@pytest.mark.parametrize(
    ("name", "last", "options"),
    [
        ("resnet18", "fc", {}),
        ("mobilenet_v3_small", "classifier.3", {}),
        ("googlenet", "fc", {"transform_input": True, "init_weights": False}),
    ],
)
def test_published_weights_are_taken_from_torchs_cache(
    publish: Callable[..., Path], name: str, last: str, options: dict[str, bool]
):
    model = torchvision_model(name, **options)
    place = publish(name, model.state_dict())
    prior = resolve(PriorRequest(name))
    assert prior.weights_file == place
    model.set_submodule(last, nn.Identity())
    torch.testing.assert_close(features(prior, 224), model(images(224)).detach())


@pytest.mark.parametrize("damage", ["missing", "unexpected", "misshapen", "changed"])
def test_a_published_file_that_does_not_fit_is_refused(publish: Callable[..., Path], damage: str):
    state = torchvision_model("resnet18").state_dict()
    if damage == "missing":
        del state["layer1.0.bn1.weight"]
    elif damage == "unexpected":
        state["layer9.weight"] = torch.zeros(1)
    elif damage == "misshapen":
        state["conv1.weight"] = torch.zeros(64, 3, 3, 3)
    place = publish("resnet18", state)
    if damage == "changed":  # one bit of one weight
        flip_bit(place)
    with pytest.raises(DataError, match=re.escape(str(place))):
        resolve(PriorRequest("resnet18"))


@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenet_v2", "efficientnet_b0", "efficientnet_b1", "shufflenet_v2_x1_5"]
)
def test_the_preprocessing_is_the_preset_of_the_weights(tmp_path: Path, name: str):
    torch.save(build_backbone(name, seed=0).state_dict(), tmp_path / "mine.pth")
    found = resolve(PriorRequest(name, weights=tmp_path / "mine.pth")).identity.preprocessing
    preset = tv.get_model_weights(name).DEFAULT.transforms()
    assert (found.resize, found.crop) == (preset.resize_size[0], preset.crop_size[0])
    assert found.interpolation == preset.interpolation.value
    assert (list(found.mean), list(found.std)) == (preset.mean, preset.std)


@torch.no_grad()
def test_a_chosen_input_size_replaces_that_of_the_preset(tmp_path: Path):
    """The crop keeps its share of the image; the features are the model's at that size."""
    model = build_backbone("resnet18", seed=0).eval()
    torch.save(model.state_dict(), tmp_path / "mine.pth")
    request = PriorRequest("resnet18", weights=tmp_path / "mine.pth", image_size=64, resizes=True)
    prior = resolve(request)
    preset = tv.get_model_weights("resnet18").DEFAULT.transforms()
    found = prior.identity.preprocessing
    assert (found.crop, prior.identity.image_size) == (64, 64)
    assert found.resize == round(64 * preset.resize_size[0] / preset.crop_size[0])
    torch.testing.assert_close(prior.load()(images(64)), model(images(64)))


@torch.no_grad()
def test_vision_transformers_take_sizes_of_whole_patches(monkeypatch: pytest.MonkeyPatch):
    def vit(size: int) -> VisionTransformer:
        with torch.random.fork_rng():
            torch.manual_seed(size)
            return VisionTransformer(size, 32, num_layers=1, num_heads=2, hidden_dim=32, mlp_dim=32)

    build = "rela.models.backbones.build_backbone"
    monkeypatch.setattr(build, lambda name, size, seed: vit(size))
    model, expected = vit(96).eval(), vit(64).eval()
    expected.load_state_dict(interpolate_embeddings(64, 32, dict(model.state_dict())))
    request = PriorRequest("vit_b_32", image_size=64, resizes=True)
    found = rela.priors.torchvision._resized(model, request)
    torch.testing.assert_close(found(images(64)), expected(images(64)))
    assert rela.priors.torchvision._resized(model, replace(request, resizes=False)) is model


def test_a_size_that_is_not_of_whole_patches_is_refused_in_a_line(tmp_path: Path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "mine.pth")
    request = PriorRequest("vit_b_16", weights=tmp_path / "mine.pth", image_size=200, resizes=True)
    with pytest.raises(ChoiceError, match="multiple of 16, such as --image-size 192") as caught:
        resolve(request)
    assert "\n" not in str(caught.value)


def test_each_published_file_has_its_own_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """By the name of the file, or by its digest, which the published name holds."""
    state = build_backbone("mobilenet_v2", seed=0).state_dict()
    first, second = tv.MobileNet_V2_Weights.IMAGENET1K_V1, tv.MobileNet_V2_Weights.IMAGENET1K_V2
    assert first.transforms().resize_size != second.transforms().resize_size
    torch.save(state, tmp_path / "mobilenet_v2-b0353104.pth")
    torch.save(state, tmp_path / "mine.pth")
    torch.save({**state, "classifier.1.bias": torch.zeros(9)}, tmp_path / "best.pth")
    digest = hashlib.sha256((tmp_path / "best.pth").read_bytes()).hexdigest()

    def resize_of(file: str) -> list[int]:
        request = PriorRequest("mobilenet_v2", weights=tmp_path / file)
        weights = rela.priors.torchvision._published_weights(request)
        return [rela.priors.torchvision._preprocessing(weights).resize]

    by_file = PriorRequest(f"file:{tmp_path}/mobilenet_v2-b0353104.pth", arch="mobilenet_v2")
    assert [resolve(by_file).identity.preprocessing.resize] == first.transforms().resize_size
    assert resize_of("mobilenet_v2-b0353104.pth") == first.transforms().resize_size
    assert resize_of("mine.pth") == second.transforms().resize_size
    monkeypatch.setattr(first.value, "url", f"https://example.org/mobilenet_v2-{digest[:8]}.pth")
    assert resize_of("best.pth") == first.transforms().resize_size


def test_an_unknown_prior_is_answered_with_close_names():
    with pytest.raises(ChoiceError, match="resnet18"):
        resolve(PriorRequest("resnet81"))


# Runs as priors


def run_directory(tmp_path: Path) -> PriorIdentity:
    """What a finished run leaves: a backbone and its identity."""
    prior = resolve(PriorRequest("random:resnet18_small", seed=5, image_size=32))
    save_weights(tmp_path / BACKBONE_FILE, prior.load(), {})
    write_identity(tmp_path, prior.identity)
    return prior.identity


def test_a_run_is_a_prior_with_its_exported_weights(tmp_path: Path):
    written = run_directory(tmp_path)
    identity = read_identity(tmp_path)
    assert identity == written
    assert identity.preprocessing == preprocessing_for(32)
    loaded = load_backbone(tmp_path, identity)
    reference = build_backbone("resnet18_small", seed=2**31 + 5).eval()
    torch.testing.assert_close(loaded(images(32)), reference(images(32)))


def test_weights_changed_after_the_run_are_refused(tmp_path: Path):
    identity = run_directory(tmp_path)
    save_weights(tmp_path / BACKBONE_FILE, build_backbone("resnet18_small", seed=6), {})
    with pytest.raises(DataError, match="changed after the run"):
        load_backbone(tmp_path, identity)
