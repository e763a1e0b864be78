"""Every name of a prior that any command prints is accepted by every command that takes a prior.

The workspace holds files with names that mean something else (`resnet18.pth`, `none.pth`, one with `+`, `@`,
`,` and a space), files of one name, a run and a file of another run of that name, weights for a known
architecture, a layer with a `+` in it, two sizes, and combinations of these. A file is found by its path,
and wherever it is moved or copied to, without its architecture.
"""

import os
import shutil
from pathlib import Path

import pytest
import torch
from command_line import Rela, read_json
from finished_runs import finished_run

from rela.errors import ChoiceError
from rela.models.backbones import build_backbone
from rela.models.weights import save_weights
from rela.priors import PriorRequest
from rela.priors.names import shown_names
from rela.stages.priors.find import open_representations
from rela.stages.priors.identify import identify
from rela.stages.train.prior import chosen_representations
from rela.stages.workspace.workspace import Workspace
from rela.training.settings import TrainSettings

CNN = "shufflenet_v2_x0_5"
ARCH = ("--arch", CNN, "--image-size", 32)
ODD = "a + b@96px,c.pth"
FILES = ("a/best.pth", "b/best.pth", "resnet18.pth", "none.pth", ODD)
QUERY = "images/train/bee/02.png"


@pytest.fixture
def workspace(rela: Rela, images: Path, tmp_path: Path) -> Workspace:
    for seed, file in enumerate((*FILES, "mine.pth")):
        Path(file).parent.mkdir(exist_ok=True)
        torch.save(build_backbone(CNN, 32, seed=seed).state_dict(), file)
    for file in FILES:
        rela("embed", "--prior", f"file:{file}", *ARCH)
    rela("embed", "--prior", CNN, "--weights", "mine.pth", "--image-size", 32)
    for size in (32, 48):
        rela("embed", "--prior", f"random:{CNN}", "--image-size", size)
    rela("embed", "--prior", "random:timm:test_vit", "--layer", "class+patches", "--image-size", 32)
    finished_run(tmp_path / "workspace", "images", CNN, "teacher")
    other = Path("other/runs/teacher/backbone.safetensors")
    other.parent.mkdir(parents=True)
    recorded = {"arch": CNN, "image_size": 32}
    save_weights(other, build_backbone(CNN, 32, seed=20), recorded)
    for prior in ("teacher", f"file:{other}"):
        rela("embed", "--prior", prior)
    vit = "random:timm:test_vit-seed0@class+patches@32px"
    for several in ((ODD, "teacher"), ("resnet18.pth", vit, f"random:{CNN}-seed0@48px")):
        rela("embed", *(word for name in several for word in ("--prior", name)))
    return Workspace(Path("workspace"))


def printed(rela: Rela) -> set[str]:
    """Names in lists, tables and errors."""
    rows = [
        *read_json(rela("status", "--json"))["representations"],
        *(row for row in read_json(rela("priors", "list", "--json"))["priors"] if row["embedded"]),
        *read_json(rela("priors", "rank", "--rows", 8, "--json"))["priors"],
    ]
    found = {row["prior"] for row in rows}
    for command in (("neighbors", QUERY), ("train", "--epochs", 1)):
        listed = rela(*command, exit_code=2).stderr.strip().rpartition("choose one with --prior: ")
        names = {name.removesuffix(" (or none)") for name in listed[2].split(", ")}
        assert len(names) > 5 and names <= found, command
    for file in ("a/best.pth", "b/best.pth"):
        assert not any(file in name for name in found)
    return found


def test_every_printed_name_is_accepted_everywhere(rela: Rela, workspace: Workspace):
    made = workspace.representations()
    names = dict(zip(shown_names(each.prior for each in made), made, strict=True))
    assert printed(rela) == set(names)
    assert {
        ODD,
        "resnet18.pth",
        "none.pth",
        f"{CNN}@mine.pth",
        "teacher",
        "teacher.safetensors",
    } < {*names}
    dataset, nobody = workspace.dataset(), []
    for name, expected in names.items():
        again = read_json(rela("embed", "--prior", name, "--json"))
        assert again["cached"] and Path(again["artifact"]["path"]).name == expected.name, name
        settings = TrainSettings(prior=name)
        chosen = chosen_representations(workspace, dataset, settings, False, nobody.append)
        assert chosen is not None and chosen.name == expected.name
        nearest = read_json(rela("neighbors", QUERY, "--prior", name, "--count", 1, "--json"))
        assert (nearest["prior"], nearest["neighbors"][0]["path"]) == (name, "train/bee/02.png")
        assert len(open_representations(workspace, name).array) == 24
    jobs = "".join(f"[[embed]]\ndataset = 'images'\nprior = '{name}'\n" for name in names)
    Path("recipe.toml").write_text(jobs)
    plan = read_json(rela("run", "recipe.toml", "--dry-run", "--json"))
    assert all(job["state"] == "there" for job in plan["jobs"]), plan
    for name in ("none.pth", "resnet18.pth@stage2"):
        table = rela("eval", "--prior", name, "--protocol", "knn20").stdout
        assert f"{name} " in table


def test_a_file_is_known_without_its_architecture_wherever_it_is(
    rela: Rela, images: Path, tmp_path: Path
):
    torch.save(build_backbone(CNN, 32, seed=1).state_dict(), "best.pth")
    made = read_json(rela("embed", "--prior", "file:best.pth", *ARCH, "--json"))["artifact"]["path"]
    place = Workspace(Path("workspace"))
    Path("elsewhere").mkdir()
    shutil.copy("best.pth", "elsewhere/copy.pth")
    os.link("best.pth", "elsewhere/link.pth")
    Path("symlink.pth").symlink_to("best.pth")
    forms = (
        "best.pth",
        tmp_path / "best.pth",
        "elsewhere/copy.pth",
        "elsewhere/link.pth",
        "symlink.pth",
    )
    for form in forms:
        prior = f"file:{form}"
        again = read_json(rela("embed", "--prior", prior, "--json"))
        assert again["cached"] and again["artifact"]["path"] == made, form
        settings = TrainSettings(prior=prior)
        chosen = chosen_representations(place, place.dataset(), settings, False, print)
        assert chosen is not None and str(chosen.path.resolve()) == str(Path(made).resolve())
        assert (
            read_json(rela("neighbors", QUERY, "--prior", prior, "--json"))["prior"] == "best.pth"
        )
    assert (
        "copy.pth@stage2"
        in rela("embed", "--prior", "file:elsewhere/copy.pth", "--layer", "stage2").output
    )  # other features need the model, of this file

    Path("best.pth").rename("elsewhere/moved.pth")
    for form in ("best.pth", "elsewhere/moved.pth"):
        assert read_json(rela("embed", "--prior", f"file:{form}", "--json"))["cached"]
    torch.save(build_backbone(CNN, 32, seed=2).state_dict(), "best.pth")
    said = rela("embed", "--prior", "file:best.pth", exit_code=2).stderr
    assert (
        "best.pth has other weights than when it was used here" in said and f"--arch {CNN}" in said
    )


def test_what_is_called_so_is_taken_only_if_nothing_else_is(rela: Rela, images: Path):
    """Earlier versions left out the suffix."""
    torch.save(build_backbone(CNN, 32, seed=1).state_dict(), "best.pth")
    Path("best.pth").rename("resnet18.pth")
    rela("embed", "--prior", "file:resnet18.pth", *ARCH)
    shutil.copy("resnet18.pth", "best.pt")
    rela("embed", "--prior", "file:best.pt", "--arch", CNN, "--image-size", 48)
    place = Workspace(Path("workspace"))
    assert identify(place, PriorRequest("best"), may_build=False).identity.name == "best.pt"
    with pytest.raises(ChoiceError, match="has not been used"):
        identify(place, PriorRequest("resnet18"), may_build=False)


def test_a_file_with_the_longest_name_is_a_prior(rela: Rela, images: Path):
    name = "a" * 251 + ".pth"
    torch.save(build_backbone(CNN, 32, seed=1).state_dict(), name)
    rela("embed", "--prior", f"file:{name}", *ARCH)
    assert read_json(rela("embed", "--prior", name, "--json"))["cached"]
