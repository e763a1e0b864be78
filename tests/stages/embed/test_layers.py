"""Several layers of a prior: one artifact each, from one forward pass, with the bytes of each alone.

Part of them may be cached, or interrupted; a layer that does not exist is refused before any is embedded; a
training says which one it learns from.
"""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from command_line import Rela, printed_commands, read_json

import rela as library
from rela.pipeline.parts import PartStore
from rela.representations.embedder import Embedder
from rela.stages.embed.embed import _name_and_layers

EMBED = ("embed", "--prior", "random:timm:test_resnet", "--image-size", 32)
LAYERS = ("pooled", "layer2", "layer3:flat")


@pytest.fixture(autouse=True)
def parts_of_four_images(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("matrix_file", "targets"):
        monkeypatch.setattr(f"rela.representations.{module}.ROWS_PER_PART", 4)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of images of every forward pass."""
    seen: list[int] = []
    features = Embedder.features

    def counted(self: Embedder, images: object) -> object:
        seen.append(len(images))  # type: ignore[arg-type]
        return features(self, images)  # type: ignore[arg-type]

    monkeypatch.setattr(Embedder, "features", counted)
    return seen


def options(layers: tuple[str, ...]) -> list[str]:
    return [word for layer in layers for word in ("--layer", layer)]


def matrices(workspace: str) -> dict[str, bytes]:
    """The file of each layer."""
    found = {}
    for path in Path(workspace).glob("representations/*/manifest.json"):
        layer = read_json(path)["parameters"]["layer"]
        found[layer] = (path.parent / "representations.h5").read_bytes()
    return found


@pytest.fixture
def alone(rela: Rela, small_tree: Path) -> dict[str, bytes]:
    """The file of each layer, embedded by itself."""
    rela("--workspace", "alone", "convert", small_tree)
    for layer in LAYERS:
        rela("--workspace", "alone", *EMBED, "--layer", layer)
    rela("convert", small_tree)
    return matrices("alone")


def test_one_pass_gives_each_layer_the_bytes_it_has_alone(
    rela: Rela, alone: dict[str, bytes], passes: list[int], monkeypatch: pytest.MonkeyPatch
):
    write, written = PartStore.write, []

    def write_two_then_die(*given: object) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(given)
        write(*given)  # type: ignore[arg-type]

    rela(*EMBED, *options(LAYERS[:1]))
    assert sum(passes) == 32  # filled up to a power of two
    with monkeypatch.context() as patch:
        patch.setattr(PartStore, "write", write_two_then_die)
        rela(*EMBED, *options(LAYERS), exit_code=130)
    passes.clear()
    said = rela(*EMBED, *options(LAYERS)).output
    assert said.count(" sees ") == said.count("resuming after") == 1
    assert "layers layer2 and layer3:flat" in said and "already exist" in said
    assert sum(passes) <= 32 and matrices("workspace") == alone
    passes.clear()
    [*results] = library.embed(prior=EMBED[2], image_size=32, layer=list(LAYERS)).layers
    assert [r.cached for r in results] == [True] * 3 and not passes
    shapes = [r.artifact.content.shape for r in results]
    assert shapes[0][0] == 24 and shapes[2] == (24, 48 * 4 * 4)


def test_a_layer_that_does_not_exist_is_refused_before_any_is_embedded(
    rela: Rela, images: Path, passes: list[int]
):
    said = rela(*EMBED, *options(("layer2", "layre3")), exit_code=2).output
    assert "--layer layre3: no such layer; did you mean layer3" in said and not passes


PRIOR = EMBED[2]
OF_OTHERS = ("--layer", "layre3")


@pytest.mark.parametrize(
    "line",
    [
        ["neighbors", "--duplicates", "--prior", PRIOR, *OF_OTHERS],
        ["neighbors", "--duplicates", "--prior", f"{PRIOR}@layre3"],
        ["neighbors", "--duplicates", "--prior", "resnet18", *OF_OTHERS],  # never embedded
        ["train", *OF_OTHERS],
        ["train", "--prior", PRIOR, *OF_OTHERS],
        ["eval", "--prior", PRIOR, *OF_OTHERS],
        ["export", "--to", "npy", "--prior", f"{PRIOR}@layre3"],
    ],
)
def test_a_misspelt_layer_is_answered_with_those_that_there_are(
    rela: Rela, images: Path, line: list[str]
):
    rela(*EMBED, "--layer", "layer2")
    said = rela(*line, exit_code=2).stderr
    assert "no such layer; did you mean layer3" in said and not printed_commands(said)


def test_several_layers_in_one_text_are_answered_with_the_command(rela: Rela, images: Path):
    [command] = printed_commands(rela(*EMBED, "--layer", "layer2,layer3", exit_code=2).stderr)
    rela(*command.split()[1:])
    assert matrices("workspace").keys() == {"layer2", "layer3"}
    said = rela("train", "--layer", "layer2,layer3", exit_code=2).stderr
    assert "names several layers" in said


def test_neighbors_do_not_ignore_a_layer_without_a_prior(rela: Rela, images: Path):
    rela(*EMBED, "--layer", "layer2")
    said = rela("neighbors", "--duplicates", "--layer", "layer2", exit_code=2).stderr
    [command] = printed_commands(said)
    rela(*command.split()[1:])


def test_a_recipe_embeds_the_layers_in_one_job(rela: Rela, images: Path, passes: list[int]):
    Path("recipe.toml").write_text(
        f'[[embed]]\nprior = "{EMBED[2]}"\nimage_size = 32\nlayer = ["layer2", "layer3"]\n'
    )
    assert "1 of 1 jobs to do" in rela("run", "recipe.toml", "--dry-run", "--no-measure").output
    rela("run", "recipe.toml")
    assert sum(passes) == 32 and set(matrices("workspace")) == {"layer2", "layer3"}
    assert "0 of 1 jobs to do" in rela("run", "recipe.toml", "--dry-run", "--no-measure").output


def test_a_training_says_which_layer_it_learns_from(rela: Rela, images: Path):
    rela(*EMBED, *options(("layer2", "layer3")))
    train = ("train", "--model", "timm:test_resnet", "--image-size", 32, "--epochs", 1)
    train = (*train, "--batch-size", 8, "--handover", 1)
    said = rela(*train, exit_code=2).output
    assert "2 priors" in said and "--prior" in said and "@layer2@" in said and "@layer3@" in said
    said = rela(*train, "--layer", "layer4", exit_code=2).output
    assert "at layer layer4 (but at layer2, layer3)" in said
    assert "-seed0@layer3" in rela(*train, "--layer", "layer3").output
    named = rela(*train, "--prior", f"{EMBED[2]}-seed0", "--layer", "layer3").output
    assert "already finished" in named


def test_the_name_of_a_weights_file_is_not_taken_for_a_layer():
    kinds: list[Any] = [
        SimpleNamespace(
            grid=grid,
            prior=SimpleNamespace(
                identity=SimpleNamespace(name=f"cnn@layer2.pth@{layer}@64px", layer=layer)
            ),
        )
        for layer in ("layer2", "layer3")
        for grid in ("", "7x7")
    ]
    assert _name_and_layers(kinds) == (
        "cnn@layer2.pth@64px",
        "layers layer2 and layer3 as vectors and in 7×7 positions",
    )
