"""`rela neighbors --text`: the images nearest to what open_clip's own text tower makes of the words."""

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from command_line import Rela, read_json
from safetensors.torch import save_file

import rela as library

WORDS = "a red shoe"
TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> open_clip.model.CLIP:
    """A random CLIP, `clip:tiny`; its published weights are whole.safetensors."""
    (tmp_path / "tiny.json").write_text(json.dumps(TINY))
    configs = {**open_clip.factory._MODEL_CONFIGS, "tiny": TINY}
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", configs)
    torch.manual_seed(4)
    made = open_clip.model.CLIP(**TINY).eval()
    save_file(made.state_dict(), tmp_path / "whole.safetensors")
    save_file(made.visual.state_dict(), tmp_path / "tower.safetensors")
    tag = {
        "openai": {
            "file": str(tmp_path / "whole.safetensors"),
            "mean": (0.5,) * 3,
            "std": (0.5,) * 3,
        }
    }
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny", tag)
    return made


@torch.no_grad()
def test_the_nearest_are_those_of_open_clip(
    rela: Rela, model: open_clip.model.CLIP, images: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("rela.models.hub._reaches", lambda url: False)
    rela("embed", "--prior", "clip:tiny", "--dtype", "float32")
    found = read_json(rela("neighbors", "--text", WORDS, "--count", 5, "--json"))
    text = model.encode_text(open_clip.get_tokenizer("tiny")([WORDS]))[0].double().numpy()
    features = library.open_representations("clip:tiny")
    rows = np.asarray(features.array, np.float64)
    cosines = rows @ text / np.linalg.norm(rows, axis=1) / np.linalg.norm(text)
    expected = np.argsort(-cosines, kind="stable")[:5]
    assert [n["path"] for n in found["neighbors"]] == [features.paths[i] for i in expected]
    np.testing.assert_allclose(
        [n["similarity"] for n in found["neighbors"]], cosines[expected], atol=1e-5
    )
    assert (
        "nearest to a red shoe in data set images (train), by clip:tiny"
        in rela("neighbors", "--text", WORDS).stdout
    )
    assert library.neighbors(text=WORDS, count=5).text == WORDS


def test_what_has_no_text_tower_is_refused(rela: Rela, model: open_clip.model.CLIP, images: Path):
    rela("embed", "--prior", "random:timm:test_resnet", "--image-size", 32)
    said = rela("neighbors", "--text", WORDS, exit_code=2).stderr
    assert "none are embedded for data set images (train)" in said
    other = ("--prior", "random:timm:test_resnet-seed0@32px")
    said = rela("neighbors", "--text", WORDS, *other, exit_code=2).stderr
    assert "requires features of a CLIP model, found random:timm:test_resnet" in said
    said = rela("neighbors", "some.png", "--text", WORDS, exit_code=2).stderr
    assert "found IMAGE and --text" in said
    tower = ("--prior", "clip:tiny", "--weights", "tower.safetensors")
    rela("embed", *tower)
    said = rela("neighbors", "--text", WORDS, *tower, exit_code=65).stderr
    assert "tower.safetensors has no text tower of clip:tiny; give --weights the whole" in said
    whole = ("--prior", "file:whole.safetensors")
    rela("embed", *whole, "--arch", "clip:tiny")
    assert "already exist" in rela("embed", *whole, "--arch", "clip:tiny").stdout
    rela("neighbors", "--text", WORDS, *whole)
    said = rela(
        "neighbors", "--text", WORDS, exit_code=65
    ).stderr  # the only CLIP model of the two priors
    assert "tower.safetensors has no text tower" in said
