"""Priors from timm and open_clip against these libraries' own models and transforms.

- timm: published weights (put where the hub would) and files give timm's features, strictly; what a
  prior sees of an image is what timm's transform makes of it; only square centre crops;
- CLIP: features equal `encode_image`, with the activation and preprocessing of the weights' tag;
  files of the whole model and of its tower; what open_clip's transform makes of an image;
- random timm models; without a network the error says what to fetch; names that are not there.
"""

import json
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import open_clip
import pytest
import timm
import torch
from betons import beton_of
from pictures import MakeTree
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from rela.errors import ChoiceError, DataError, UnavailableError
from rela.models.preprocessing import Preprocessing, published_preprocessing
from rela.priors import PriorRequest, resolve
from rela.priors.clip import _preprocessing
from rela.representations.embedder import Embedder

SIZES = [(48, 64), (300, 260), (171, 230)]
See = Callable[[Preprocessing], np.ndarray]


@pytest.fixture(autouse=True)
def no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise URLError("Network is unreachable")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def pixels(make_tree: MakeTree) -> See:
    """What a prior with this preprocessing sees of three images, [3, 3·S·S]."""
    beton = beton_of(make_tree({f"{i}.png": size for i, size in enumerate(SIZES)}))
    return lambda preprocessing: Embedder(nn.Flatten(), preprocessing, "cpu")(beton, np.arange(3))


def transformed(folder: Path, transform: Callable[[Image.Image], Tensor]) -> np.ndarray:
    paths = sorted((folder / "images").iterdir())
    return np.stack([transform(Image.open(path)).flatten().numpy() for path in paths])


def assert_same_pixels(found: np.ndarray, expected: np.ndarray, std: tuple[float, ...]) -> None:
    """Up to one step of 255, for one pixel in a thousand two."""
    steps = np.abs(found - expected) * min(std) * 255
    assert steps.max() < 3
    assert (steps < 1.1).mean() > 0.999


def batch(size: int) -> Tensor:
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(3))


# timm


def timm_model(name: str, seed: int = 1, **options: object) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return timm.create_model(name, **options).eval()


@torch.no_grad()
@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "test_efficientnet", "test_convnext"])
def test_a_timm_file_gives_timms_features(tmp_path: Path, name: str):
    model = timm_model(name)
    save_file(model.state_dict(), tmp_path / "mine.safetensors")
    prior = resolve(PriorRequest(f"timm:{name}", weights=tmp_path / "mine.safetensors"))
    model.reset_classifier(0)
    size = prior.identity.image_size
    assert prior.identity.name == f"timm:{name}@mine.safetensors"
    assert size == model.pretrained_cfg["input_size"][1]
    torch.testing.assert_close(prior.load()(batch(size)), model(batch(size)))
    assert prior.identity.feature_dim == model.num_features


@torch.no_grad()
def test_a_checkpoint_is_built_for_the_chosen_size(tmp_path: Path):
    """Its position embeddings are those of the size that it was trained at, not of the published one."""
    model = timm.create_model("test_vit", num_classes=0, img_size=64).eval()
    save_file(model.state_dict(), tmp_path / "mine.safetensors")
    path = tmp_path / "mine.safetensors"
    for resizes in (False, True):
        request = PriorRequest(f"file:{path}", arch="timm:test_vit", image_size=64, resizes=resizes)
        prior = resolve(request)
        torch.testing.assert_close(prior.load()(batch(64)), model(batch(64)))
        config = timm.data.resolve_model_data_config(model)
        assert prior.identity.preprocessing == Preprocessing(
            round(64 / config["crop_pct"]), 64, "bicubic", config["mean"], config["std"]
        )
    other = resolve(PriorRequest(f"file:{path}", arch="timm:test_vit", image_size=96, resizes=True))
    state = {"pretrained_cfg_overlay": {"state_dict": dict(model.state_dict())}}
    expected = timm.create_model("test_vit", pretrained=True, num_classes=0, img_size=96, **state)
    torch.testing.assert_close(other.load()(batch(96)), expected.eval()(batch(96)))
    assert "pos_embed interpolated from [1, 17, 64] to [1, 37, 64]" in other.note


def publish(monkeypatch: pytest.MonkeyPatch, state: dict[str, Tensor]) -> None:
    """As if the hub had these weights."""
    load = "timm.models._builder.load_state_dict_from_hf"
    monkeypatch.setattr(load, lambda *args, **kwargs: dict(state))


@torch.no_grad()
def test_published_timm_weights_are_loaded_by_timm(monkeypatch: pytest.MonkeyPatch):
    model = timm_model("test_vit")
    publish(monkeypatch, model.state_dict())
    prior = resolve(PriorRequest("timm:test_vit.r160_in1k"))
    model.reset_classifier(0)
    assert (prior.identity.name, prior.weights_file) == ("timm:test_vit.r160_in1k", None)
    torch.testing.assert_close(prior.load()(batch(160)), model(batch(160)))
    # at another size with timm's interpolated position embeddings
    smaller = PriorRequest("timm:test_vit.r160_in1k", image_size=96, resizes=True)
    found = resolve(smaller)
    expected = timm.create_model("test_vit.r160_in1k", pretrained=True, num_classes=0, img_size=96)
    assert found.identity.image_size == 96
    torch.testing.assert_close(found.load()(batch(96)), expected.eval()(batch(96)))


def test_a_timm_model_of_one_size_refuses_another(monkeypatch: pytest.MonkeyPatch):
    publish(monkeypatch, timm_model("resmlp_12_224").state_dict())
    request = PriorRequest("timm:resmlp_12_224", image_size=96, resizes=True)
    with pytest.raises(ChoiceError, match="remove --image-size"):
        resolve(request)


def test_published_timm_weights_that_do_not_fit_are_refused(monkeypatch: pytest.MonkeyPatch):
    state = timm_model("test_vit").state_dict()
    del state["blocks.0.norm1.weight"]
    publish(monkeypatch, state)
    with pytest.raises(DataError, match="timm:test_vit do not fit"):
        resolve(PriorRequest("timm:test_vit"))


def test_a_file_of_another_timm_model_is_refused(tmp_path: Path):
    save_file(timm_model("test_vit2").state_dict(), tmp_path / "mine.safetensors")
    with pytest.raises(
        DataError,
        match=r"does not fit timm:test_vit; it fits timm:test_vit2",
    ):
        resolve(PriorRequest("timm:test_vit", weights=tmp_path / "mine.safetensors"))


@pytest.mark.parametrize(
    "name", ["test_vit", "test_resnet", "resnet10t.c3_in1k", "vit_tiny_patch16_224"]
)
@pytest.mark.parametrize("image_size", [None, 96])
@pytest.mark.parametrize("by_file", [False, True])
def test_a_prior_sees_what_timms_transform_makes(
    tmp_path: Path, pixels: See, name: str, image_size: int | None, by_file: bool
):
    model = timm_model(name, num_classes=0)
    save_file(model.state_dict(), tmp_path / "mine.safetensors")
    chosen = {} if image_size is None else {"image_size": image_size, "resizes": True}
    named: dict[str, Any] = {"name": f"timm:{name}", "weights": tmp_path / "mine.safetensors"}
    if by_file:
        named = {"name": f"file:{named['weights']}", "arch": f"timm:{name}"}
    prior = resolve(PriorRequest(**named, **chosen))
    config = timm.data.resolve_model_data_config(model)
    if image_size is not None:
        config["input_size"] = (3, image_size, image_size)
    assert prior.identity.image_size == config["input_size"][1]
    transform = timm.data.create_transform(**config, is_training=False)
    expected = transformed(tmp_path, transform)
    assert_same_pixels(pixels(prior.identity.preprocessing), expected, config["std"])


@pytest.mark.parametrize(
    ("name", "wants"),
    [
        ("timm:eva02_base_patch14_448.mim_in22k_ft_in22k", "crop mode squash"),
        ("clip:ViT-B-16-SigLIP@webli", "crop mode squash"),
    ],
)
def test_only_centre_crops_are_supported(name: str, wants: str):
    with pytest.raises(ChoiceError, match=wants):
        resolve(PriorRequest(name))


def test_what_is_set_replaces_what_is_published(tmp_path: Path):
    save_file(timm_model("test_vit").state_dict(), tmp_path / "mine.safetensors")
    path = tmp_path / "mine.safetensors"
    own = {"resize": 170, "interpolation": "bilinear", "mean": "0.1,0.2,0.3", "std": "0.5"}
    for name in (
        {"name": "timm:test_vit", "weights": path},
        {"name": f"file:{path}", "arch": "timm:test_vit"},
    ):
        plain, changed = resolve(PriorRequest(**name)), resolve(PriorRequest(**name, **own))
        assert changed.identity.preprocessing == Preprocessing(
            170, 160, "bilinear", (0.1, 0.2, 0.3), (0.5, 0.5, 0.5)
        )
        assert plain.identity.key() != changed.identity.key()
    for wrong, message in (
        ({"resize": 100}, "--resize 100 is smaller than the input size of 160"),
        ({"mean": "0.1,0.2"}, "--mean 0.1,0.2: expected one number, or three"),
        ({"std": "0"}, "--std 0: expected one number, or three"),
        ({"std": "nan"}, "--std nan"),
    ):
        with pytest.raises(ChoiceError, match=message):
            resolve(PriorRequest(**name, **wrong))


def test_a_published_file_is_known_by_its_name(tmp_path: Path):
    """Of several tags of one architecture, each with its own preprocessing."""
    state = timm_model("resnet18").state_dict()
    for file, tag in (
        ("mine.pth", ""),
        ("resnet18-f37072fd.pth", ".tv_in1k"),
        ("resnet18.tv_in1k.pth", ".tv_in1k"),
    ):
        torch.save(state, tmp_path / file)
        prior = resolve(PriorRequest(f"file:{tmp_path / file}", arch="timm:resnet18"))
        config = timm.get_pretrained_cfg(f"resnet18{tag}")
        assert prior.identity.preprocessing.interpolation == config.interpolation
        assert prior.identity.preprocessing.resize == int(224 / config.crop_pct)


def test_only_square_images_are_supported():
    with pytest.raises(ChoiceError, match="256×192 pixels"):
        published_preprocessing(
            "tall", input_size=(256, 192), crop_share=1.0, crop_mode="center",
            interpolation="bicubic", mean=(0, 0, 0), std=(1, 1, 1),
        )  # fmt: skip


@torch.no_grad()
def test_a_random_timm_model_is_built_for_the_size_of_the_images():
    prior, again, other = (
        resolve(PriorRequest("random:timm:test_vit", image_size=48, seed=s)) for s in (0, 0, 1)
    )
    assert prior.identity == again.identity
    assert prior.identity.key() != other.identity.key()
    assert prior.load().pos_embed.shape[1] == 1 + 3 * 3
    assert prior.load()(batch(48)).shape == (2, prior.identity.feature_dim)


@torch.no_grad()
def test_a_random_prior_looks_at_the_whole_image():
    # timm's residual branches begin at zero, and its shortcuts see one pixel in a block
    prior = resolve(PriorRequest("random:timm:regnetx_002", image_size=32)).load()
    images = batch(32)
    changed = images.clone()
    changed[:, :, 8:24, 8:24] = 0
    assert not torch.allclose(prior(images), prior(changed), rtol=1e-3)


# CLIP

TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 32, "width": 32, "heads": 2, "layers": 1},
}
RESNET = {**TINY, "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8}}
TAG = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4), "interpolation": "bilinear"}


@pytest.fixture
def clip_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., open_clip.model.CLIP]:
    """clip_model("tiny", quick_gelu=True) → random; its weights are the tag "openai" of this name."""
    configs = dict(open_clip.factory._MODEL_CONFIGS)
    for name, config in (("tiny", TINY), ("tiny-rn", RESNET)):
        (tmp_path / f"{name}.json").write_text(json.dumps(config))
        configs[name] = config
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", configs)

    def make(name: str, quick_gelu: bool) -> open_clip.model.CLIP:
        torch.manual_seed(4)
        model = open_clip.model.CLIP(**configs[name], quick_gelu=quick_gelu).eval()
        save_file(model.state_dict(), tmp_path / "whole.safetensors")
        save_file(model.visual.state_dict(), tmp_path / "tower.safetensors")
        tags = {"openai": {**TAG, "file": str(tmp_path / "whole.safetensors")}}
        tags["openai"]["quick_gelu"] = quick_gelu
        monkeypatch.setitem(open_clip.pretrained._PRETRAINED, name, tags)
        return model

    return make


@torch.no_grad()
@pytest.mark.parametrize("name", ["tiny", "tiny-rn"])
@pytest.mark.parametrize("quick_gelu", [True, False])
@pytest.mark.parametrize("file", [None, "whole.safetensors", "tower.safetensors"])
def test_clip_features_are_encode_images(
    tmp_path: Path, clip_model: Callable, name: str, quick_gelu: bool, file: str | None
):
    model = clip_model(name, quick_gelu)
    weights = None if file is None else tmp_path / file
    prior = resolve(PriorRequest(f"clip:{name}", weights=weights))
    torch.testing.assert_close(prior.load()(batch(64)), model.encode_image(batch(64)))
    assert prior.identity.feature_dim == 16
    assert prior.identity.arch == f"clip:{name}" + ("+quickgelu" if quick_gelu else "")
    assert not any(key.startswith("text") for key in prior.load().state_dict())
    if file == "whole.safetensors":
        assert "CLIP checkpoint" in prior.note and "token_embedding" in prior.note


def test_a_clip_file_is_one_prior_however_it_is_named(tmp_path: Path, clip_model: Callable):
    clip_model("tiny", True)
    path = tmp_path / "whole.safetensors"
    requests = (
        PriorRequest("clip:tiny", weights=path),
        PriorRequest("clip:tiny@openai", weights=path),
        PriorRequest(f"file:{path}", arch="clip:tiny"),
        PriorRequest(f"file:{path}", arch="clip:tiny@openai"),
        PriorRequest("clip:tiny"),
    )
    first, *others = (resolve(request).identity.key() for request in requests)
    assert all(other == first for other in others)


def test_the_activation_of_the_tag_matters(clip_model: Callable):
    """Else the test above could not tell."""
    quick = clip_model("tiny", True).encode_image(batch(64))
    assert not torch.allclose(quick, clip_model("tiny", False).encode_image(batch(64)), atol=1e-3)


def test_a_clip_prior_sees_what_open_clips_transform_makes(
    tmp_path: Path, clip_model: Callable, pixels: See
):
    clip_model("tiny", True)
    prior = resolve(PriorRequest("clip:tiny@openai"))
    expected = transformed(tmp_path, open_clip.image_transform(64, is_train=False, **TAG))
    assert_same_pixels(pixels(prior.identity.preprocessing), expected, TAG["std"])


@torch.no_grad()
def test_a_clip_transformer_takes_another_size_a_resnet_does_not(
    tmp_path: Path, clip_model: Callable
):
    model = clip_model("tiny", True)
    larger = open_clip.create_model("tiny", force_image_size=96, force_quick_gelu=True).eval()
    state = model.state_dict()
    open_clip.model.resize_pos_embed(state, larger)
    larger.load_state_dict(state)
    for weights in (None, tmp_path / "whole.safetensors", tmp_path / "tower.safetensors"):
        request = PriorRequest("clip:tiny", image_size=96, resizes=True, weights=weights)
        prior = resolve(request)
        assert (prior.identity.image_size, prior.identity.preprocessing.resize) == (96, 96)
        torch.testing.assert_close(prior.load()(batch(96)), larger.encode_image(batch(96)))
    clip_model("tiny-rn", True)
    with pytest.raises(ChoiceError, match="takes images of 64×64 pixels; remove --image-size"):
        resolve(PriorRequest("clip:tiny-rn", image_size=96, resizes=True))


def test_openais_models_have_openais_preprocessing():
    for name, size in (("ViT-B-16", 224), ("RN50x4", 288), ("ViT-L-14-336", 336)):
        config = open_clip.get_pretrained_cfg(name, "openai")
        found = _preprocessing(name, open_clip, name, config)
        assert found == Preprocessing(
            size, size, "bicubic",
            (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711),
        )  # fmt: skip


def test_a_clip_file_without_the_whole_tower_is_refused(tmp_path: Path, clip_model: Callable):
    state = clip_model("tiny", True).state_dict()
    del state["visual.ln_post.bias"]
    save_file(state, tmp_path / "mine.safetensors")
    with pytest.raises(DataError, match=r"missing: ln_post\.bias"):
        resolve(PriorRequest("clip:tiny", weights=tmp_path / "mine.safetensors"))


# Without a network, and names


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("timm:vit_small_patch14_dinov2.lvd142m", "timm/vit_small_patch14_dinov2.lvd142m"),
        ("timm:test_vit", "timm/test_vit.r160_in1k"),
        ("clip:RN50", "timm/resnet50_clip.openai"),
    ],
)
def test_without_a_network_the_error_says_what_to_fetch(name: str, place: str):
    with pytest.raises(UnavailableError) as caught:
        resolve(PriorRequest(name))
    assert f"https://huggingface.co/{place}" in str(caught.value)
    assert "--weights FILE" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("timm:vit_smal_patch16_224", "timm:vit_small_patch16_224"),
        ("timm:test_vit.nothing", "timm:test_vit.r160_in1k"),
        ("clip:ViT-B16", "clip:ViT-B-16"),
        ("clip:ViT-B-16@nothing", "clip:ViT-B-16@openai, .*clip:ViT-B-16@laion2b_s34b_b88k"),
        ("cilp:ViT-B-16", "timm:, clip:, file:, random:, plugin: or run:"),
        ("timm:vit_tiny_patch16_384.", "did you mean"),
    ],
)
def test_unknown_names_are_answered_with_known_ones(name: str, message: str):
    with pytest.raises(ChoiceError, match=message):
        resolve(PriorRequest(name))


@pytest.mark.parametrize("library", ["timm", "open_clip"])
def test_a_missing_extra_is_answered_with_its_command(
    monkeypatch: pytest.MonkeyPatch, library: str
):
    monkeypatch.setitem(sys.modules, library, None)
    name, extra = ("timm:test_vit", "timm") if library == "timm" else ("clip:RN50", "clip")
    with pytest.raises(ChoiceError, match=rf"pip install 'rela\[{extra}\]'"):
        resolve(PriorRequest(name))
