"""Names of priors: those that tables show mean the same when given, others lead to the right ones."""

from collections.abc import Callable
from itertools import product

import pytest

from rela.errors import ChoiceError
from rela.models.preprocessing import preprocessing_for
from rela.priors import POOLED, PriorIdentity, PriorRequest, resolve
from rela.priors.names import from_displayed_name, is_called, shown_names, tells_more
from rela.priors.prior import Combination


@pytest.mark.parametrize(
    ("shown", "name", "seed", "layer"),
    [
        ("resnet18", "resnet18", 0, POOLED),
        ("random:resnet18-seed3", "random:resnet18", 3, POOLED),
        ("random:timm:resnet18-seed0@layer3", "random:timm:resnet18", 0, "layer3"),
        ("vit_b_16@class+patches", "vit_b_16", 0, "class+patches"),
        ("run:mine@stage4", "run:mine", 0, "stage4"),
        ("clip:RN50@openai", "clip:RN50@openai", 0, POOLED),
        ("file:a@b-seed1.pt", "file:a@b-seed1.pt", 0, POOLED),
        ("file:a@96px", "file:a@96px", 0, POOLED),
    ],
)
def test_names_tell_seed_and_layer(shown: str, name: str, seed: int, layer: str):
    assert from_displayed_name(PriorRequest(shown)) == PriorRequest(name, seed=seed, layer=layer)


@pytest.mark.parametrize("name", ["resnet18", "timm:test_vit@class", "clip:RN50@openai"])
def test_names_tell_the_input_size(name: str):
    plain, sized = (
        from_displayed_name(PriorRequest(name)),
        from_displayed_name(PriorRequest(f"{name}@96px")),
    )
    assert (sized.image_size, sized.resizes) == (96, True)
    assert (sized.name, sized.layer) == (plain.name, plain.layer)


def test_options_override_the_name():
    for request in (
        PriorRequest("random:resnet18-seed3", seed=4),
        PriorRequest("vit_b_16@class", layer="patches"),
        PriorRequest("vit_b_16@96px", layer="patches", image_size=64, resizes=True),
    ):
        assert from_displayed_name(request) == request


# Names of several

Make = Callable[..., PriorIdentity]


def identity(name: str, size: int = 224, weights: str = "a" * 64) -> PriorIdentity:
    return PriorIdentity(name, "resnet18", size, weights, preprocessing_for(size), 512)


def test_only_different_priors_of_one_name_are_told_apart():
    alone, small, large = identity("resnet18"), identity("best", 96), identity("best", 224)
    assert shown_names([alone, small, large, alone]) == [
        "resnet18", "best@96px", "best@224px", "resnet18",
    ]  # fmt: skip
    other = identity("best", 224, "b" * 64)
    shown = shown_names([small, large, other])
    assert len(set(shown)) == 3 and all(name.startswith("best#") for name in shown)
    both = Combination((alone, large)), Combination((alone, other))
    names = shown_names(both)
    assert len(set(names)) == 2 and all(name.startswith("resnet18+best#") for name in names)


def test_every_shown_name_is_accepted_and_means_one_of_them():
    several = [identity("best", size, w * 64) for size, w in product((96, 224), "ab")]
    priors = [*several, *(Combination((a, b)) for a, b in product(several, several) if a != b)]
    names = shown_names(priors)
    assert len(set(names)) == len(priors)
    for name in names:
        assert tells_more(name)
        assert [is_called(prior, name) for prior in priors] == [name == own for own in names]
    assert all(is_called(prior, "best") for prior in several)
    assert is_called(priors[-1], "best+best") and not is_called(several[0], "best@64px")
    assert not is_called(priors[-1], "best+best+best")
    assert not any(map(tells_more, ("best", "resnet18@layer3", "a+b@class+patches", "x#12")))


# Names of other libraries

MEANT = {
    "dinov2_vits14": "timm:vit_small_patch14_dinov2",
    "dinov2_vitb14_reg": "timm:vit_base_patch14_reg4_dinov2",
    "dino_vits16": "timm:vit_small_patch16_224.dino",
    "facebook/dinov2-small": "timm:vit_small_patch14_dinov2",
    "facebook/dinov2-with-registers-base": "timm:vit_base_patch14_reg4_dinov2",
    "facebook/dinov3-vits16-pretrain-lvd1689m": "timm:vit_small_patch16_dinov3.lvd1689m",
    "facebook/vit-mae-base": "timm:vit_base_patch16_224.mae",
    "facebook/ijepa_vith14_1k": "timm:vit_huge_patch14_gap_224.in1k_ijepa",
    "microsoft/resnet-50": "resnet50",
    "microsoft/swin-tiny-patch4-window7-224": "timm:swin_tiny_patch4_window7_224",
    "openai/clip-vit-base-patch32": "clip:ViT-B-32@openai",
    "openai/clip-vit-large-patch14-336": "clip:ViT-L-14-336@openai",
    "laion/CLIP-ViT-B-32-laion2B-s34B-b79K": "clip:ViT-B-32@laion2b_s34b_b79k",
    "vit_base_patch16_224": "timm:vit_base_patch16_224",
    "timm/resnet50.a1_in1k": "timm:resnet50.a1_in1k",
    "hf-hub:timm/vit_base_patch16_224.mae": "timm:vit_base_patch16_224.mae",
    "hf-hub:laion/CLIP-ViT-H-14-laion2B-s32B-b79K": "clip:ViT-H-14@laion2b_s32b_b79k",
    "google/vit-base-patch16-224": "timm:vit_base_patch16_224",
    "google/siglip-base-patch16-224": "timm:vit_base_patch16_siglip_224",
    "facebook/convnext-tiny-224": "convnext_tiny",
    "facebook/dino-vitb8": "timm:vit_base_patch8_224.dino",
    "facebookresearch/dinov2:dinov2_vits14": "timm:vit_small_patch14_dinov2",
    "https://huggingface.co/facebook/dinov2-small": "timm:vit_small_patch14_dinov2",
    "convnext-tiny": "convnext_tiny",
    "swin-t": "swin_t",
    "ijepa": "timm:vit_huge_patch14_gap_224.in1k_ijepa",
    "ResNet50": "resnet50",
    "resnet-18": "resnet18",
    "torchvision/resnet50": "resnet50",
    "torchvision:resnet50": "resnet50",
    "ResNet50_Weights.DEFAULT": "resnet50",
    "efficientnet_b0.ra_in1k": "timm:efficientnet_b0.ra_in1k",
    "efficientnet-b0": "efficientnet_b0",
    "timm:resnet-50": "timm:resnet50",
    "random:ResNet18": "resnet18",
    "RN50": "clip:RN50@openai",
    "ViT-B/32": "clip:ViT-B-32@openai",
    "clip:ViT-B/32": "clip:ViT-B-32",
    "open_clip:ViT-B-32": "clip:ViT-B-32@openai",
    "vit-b-16": "vit_b_16",
    "clip": "clip:ViT-B-16",
    "timm": "timm:resnet18.a1_in1k",
    "resnet81": "resnet18",
}


@pytest.mark.parametrize("name", MEANT)
def test_other_names_lead_to_the_right_one(name: str):
    with pytest.raises(ChoiceError) as caught:
        resolve(PriorRequest(name))
    first = str(caught.value).replace("such as", "did you mean").rpartition("did you mean ")[2]
    assert first.split(",")[0].rstrip("?") == MEANT[name]


def test_a_model_of_timm_is_named_as_an_architecture_too():
    from rela.models.backbones import parse_model_name

    with pytest.raises(ChoiceError, match=r"did you mean timm:vit_small_patch14_dinov2,"):
        parse_model_name("dinov2_vits14")
