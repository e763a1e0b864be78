"""A new kind of prior: a module and its line in the registry, used through every command that names kinds.

Its third file is pyproject.toml, for an extra. Checks the list, completion, names, embedding, the record
that makes the second call a cache hit, the extras, the help text, and that the registry itself is light.
"""

import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
import torch
from click.shell_completion import ShellComplete
from command_line import REPOSITORY, Rela, read_json, run_python
from torch import nn

from rela.cli import main
from rela.models.preprocessing import preprocessing_for
from rela.models.weights import state_sha256
from rela.priors import KINDS, Prior, PriorIdentity, PriorRequest, packages


def resolve(request: PriorRequest) -> Prior:
    """Random projections of the pixels."""
    size, width = request.image_size, int(request.name.removeprefix("pixels:"))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * size**2, width)).eval()
    identity = PriorIdentity(
        request.name, request.name, size, state_sha256(model.state_dict()), preprocessing_for(size), width
    )  # fmt: skip
    return Prior(identity, lambda: model)


@pytest.fixture
def pixels(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module, in the registry."""
    module = ModuleType("rela.priors.pixels")
    module.PREFIX, module.METAVAR, module.EXAMPLE = "pixels:", "WIDTH", "pixels:8"
    module.ABOUT, module.EXTRA, module.LITERAL = "random projections", "pixels", ""
    module.PACKAGES, module.resolve = {"PIL": "pillow"}, resolve
    module.names = lambda: ["pixels:8", "pixels:16"]
    monkeypatch.setitem(KINDS, module.PREFIX, module)
    return module


def test_it_is_listed_and_completed_with_its_example(rela: Rela, pixels: ModuleType):
    rows = {row["prior"]: row for row in read_json(rela("priors", "list", "--json"))["priors"]}
    assert rows["pixels:WIDTH"]["note"] == "random projections, such as pixels:8"
    assert rows["pixels:WIDTH"]["usable"]
    assert "pixels:8" in rela("priors", "list").stdout
    shell = ShellComplete(main, {}, "rela", "_RELA_COMPLETE")
    assert [i.value for i in shell.get_completions(["embed", "--prior"], "pi")] == ["pixels:"]
    pixels.PACKAGES = {"not_installed": "not-installed"}
    assert "pip install 'rela[pixels]'" in rela("priors", "list").stdout


def test_it_embeds_and_the_second_call_is_a_hit(rela: Rela, pixels: ModuleType, small_tree: Path):
    rela("convert", small_tree)
    assert "such as pixels:8" in rela("embed", "--prior", "pixels:", exit_code=2).stderr
    made = read_json(rela("embed", "--prior", "pixels:8", "--json"))
    assert made["artifact"]["manifest"]["content"]["shape"] == [24, 8]
    pixels.resolve = None
    assert read_json(rela("embed", "--prior", "pixels:8", "--json"))["cached"]
    rows = read_json(rela("priors", "list", "--json"))["priors"]
    assert ("pixels", "pixels:8") in {(row["source"], row["prior"]) for row in rows}


def test_its_packages_are_versioned(pixels: ModuleType):
    assert packages() == ["torchvision", "timm", "open_clip_torch", "pillow"]


def test_extras_install_the_packages_of_their_kinds():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    for kind in KINDS.values():
        extras = project["optional-dependencies"]
        needed = extras[kind.EXTRA] if kind.EXTRA else project["dependencies"]
        names = {re.split("[^a-zA-Z0-9_-]", requirement)[0] for requirement in needed}
        assert set(kind.PACKAGES.values()) <= names, kind.PREFIX


def test_help_shows_every_kind_and_the_registry_is_light():
    heavy = "{'torch', 'torchvision', 'timm', 'open_clip', 'numpy', 'PIL'}"
    code = (
        "import sys; from types import SimpleNamespace; from rela.priors import KINDS\n"
        f"assert not {heavy} & set(sys.modules)\n"
        "KINDS['pixels:'] = SimpleNamespace(PREFIX='pixels:', METAVAR='WIDTH')\n"
        "from rela import cli; cli.main(['embed', '--help'])"
    )
    words = " ".join(run_python("-c", code, check=True).stdout.split())
    assert (
        "(resnet18), timm:NAME, clip:NAME, file:PATH, random:ARCH, plugin:NAME, pixels:WIDTH, or an"
        in words
    )
