"""Hostile files and odd JSON, beside the cases of `scripts/faults files` (test_fault_campaigns).

- archives, betons and crops that claim what is not there are refused;
- JSON of any form, however well digested, is refused before anything relies on it;
- recipes without end, and numbers that are not finite.
"""

import json
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import pytest
import torch
from command_line import run_rela
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pictures import picture
from PIL import Image

from benchmarks.faults import Tally
from benchmarks.faults.readings import Case, Watched, try_all
from rela.data.beton.encoding import Encoding
from rela.data.beton.reader import open_beton
from rela.data.beton.writer import write_beton
from rela.data.crops import CropPlan
from rela.data.loader import ViewLoader
from rela.data.views import stage1_views
from rela.errors import ChoiceError, DataError
from rela.models.backbones import build_backbone
from rela.models.foreign_checkpoints import load_backbone_weights
from rela.options import check_options
from rela.pipeline.errors import CorruptArtifactError
from rela.pipeline.fingerprint import fingerprint
from rela.pipeline.manifest import Manifest
from rela.priors import PriorIdentity
from rela.sources.source import Sample
from rela.stages.priors.records import read_record
from rela.stages.recipe.jobs import load_recipe
from rela.stages.workspace.run import read_config
from rela.stages.workspace.schema import Float, Int, fits
from rela.stages.workspace.workspace import Workspace, open_artifact
from rela.training.settings import TrainSettings

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
_many = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def secret(tmp_path: Path) -> Watched:
    return Watched(tmp_path / "secret")


def test_the_watch_sees_who_opens_a_file(secret: Watched) -> None:
    assert not secret.was_touched()
    secret.path.read_bytes()
    assert secret.was_touched() and not secret.was_touched()


def test_an_archive_that_holds_more_than_itself_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 20))
    monkeypatch.setattr(torch, "load", lambda *a, **k: pytest.fail("it was opened"))
    with pytest.raises(DataError, match="claims to hold"):
        load_backbone_weights(build_backbone("shufflenet_v2_x0_5", 32), tmp_path / "bomb.pt", [])


@pytest.fixture
def beton(tmp_path: Path) -> Path:
    samples = []
    for number in range(4):
        Image.fromarray(picture(number)).save(tmp_path / f"{number}.png")
        samples.append(Sample(f"{number}.png", number % 2))
    path = tmp_path / "sound.beton"
    write_beton(path, tmp_path, samples, Encoding(), 1)
    return path


def test_labels_beyond_the_classes_are_refused(beton: Path) -> None:
    with pytest.raises(DataError, match="not those of 1 classes"):
        open_beton(beton, 1)


@pytest.mark.parametrize(("column", "value"), [(0, 65_535), (1, 24), (2, 25), (3, 0)])
def test_crops_outside_of_their_image_are_refused(beton: Path, column: int, value: int) -> None:
    opened = open_beton(beton)
    crops = CropPlan(2).draw(opened)
    ViewLoader(opened, stage1_views(8), 2, crops=crops)
    crops[3, 1, column] = value
    with pytest.raises(DataError, match="a crop of image 3 is not within"):
        ViewLoader(opened, stage1_views(8), 2, crops=crops)


def test_a_crash_a_hang_and_an_excess_would_be_counted(tmp_path: Path) -> None:
    import mmap
    import os
    import signal

    def excess() -> None:
        with mmap.mmap(-1, 1 << 28) as fresh:  # not from memory that was freed before
            fresh.write(bytes(1 << 28))

    cases = [
        Case("sound", lambda: None),
        Case("crash", lambda: os.kill(os.getpid(), signal.SIGKILL)),
        Case("hang", lambda: os.kill(os.getpid(), signal.SIGALRM)),
        Case("excess", excess),
        Case("bug", lambda: 1 // 0),
    ]
    tally = Tally("")
    try_all(tally, cases, tmp_path / "log")  # type: ignore[arg-type]
    assert tally.held == 1
    kinds = [problem.partition(":")[0] for problem in tally.broken]
    assert kinds == ["crash", "hang", "excess", "bug"]


# JSON


def digested(directory: Path, document: dict[str, Any]) -> Path:
    """A directory with this manifest, well digested."""
    directory.mkdir(exist_ok=True)
    text = json.dumps({**document, "manifest_sha256": fingerprint(document)})
    (directory / "manifest.json").write_text(text)
    return directory


@pytest.mark.parametrize("name", ["../../x", "/etc/passwd", "a/../../x", "", "\0"])
def test_files_of_a_manifest_lie_within_its_artifact(tmp_path: Path, name: str) -> None:
    digested(
        tmp_path / "a", {"kind": "targets", "fingerprint": "", "file_sha256": {name: "0" * 64}}
    )
    with pytest.raises(CorruptArtifactError, match="not a readable manifest"):
        Manifest.read(tmp_path / "a")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("odd")
    (root / "images" / "a").mkdir(parents=True)
    Image.fromarray(picture(0)).save(root / "images" / "a" / "1.png")
    run_rela("--workspace", root / "ws", "convert", root / "images", "--workers", 1)
    return root / "ws" / "datasets" / "images"


_CONFIG = {
    "fingerprint": "", "dataset": {"name": "a", "fingerprint": ""}, "representations": None,
    "precision": "32-true",
    "settings": {"model": "resnet18", "image_size": 32, "hyperparameters": "paper", "optimizer": "sgd",
                 "lr": 0.1, "weight_decay": 0.0, "schedule": "cosine", "warmup_epochs": 0},
}  # fmt: skip


@_many
@given(
    key=st.sampled_from(sorted(TrainSettings.__dataclass_fields__)) | st.text(max_size=5),
    value=_JSON,
)
def test_configurations_have_settings_or_are_damaged(tmp_path: Path, key: str, value: Any) -> None:
    config = {**_CONFIG, "settings": {**_CONFIG["settings"], key: value}}  # type: ignore[dict-item]
    (tmp_path / "config.json").write_text(json.dumps(config))
    try:
        found = vars(read_config(tmp_path).settings)
    except CorruptArtifactError:
        return
    check_options(TrainSettings(**found))
    assert found[key] == value


def test_a_configuration_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(_CONFIG))
    assert read_config(tmp_path).settings.epochs == TrainSettings.epochs
    (tmp_path / "config.json").write_text(json.dumps({**_CONFIG, "precision": "x"}))
    with pytest.raises(CorruptArtifactError, match="--precision x"):
        read_config(tmp_path)


@_many
@given(value=_JSON)
def test_records_of_priors_are_identities_or_nothing(tmp_path: Path, value: Any) -> None:
    for record in (value, {"weights_file": None, "note": "", "prior": value}):
        (tmp_path / "record.json").write_text(json.dumps(record))
        assert read_record(tmp_path / "record.json") is None
    with pytest.raises((TypeError, ValueError, KeyError)):
        PriorIdentity.from_dict(value)


class OneOptional(TypedDict):
    a: Int
    b: NotRequired[str]


@pytest.mark.parametrize(
    ("kind", "fitting", "others"),
    [
        (Int, [0, -7], [True, 1.0, None, "1", 1 << 63]),
        (Float, [0, 0.5], [True, "x", float("nan"), float("inf"), 10**400]),
        (str | None, ["", None], [0, []]),
        (list[Int], [[], [1, 2]], [1, [1, "2"], {}]),
        (dict[str, list[str]], [{}, {"a": ["b"]}], [[], {"a": "b"}]),
        (OneOptional, [{"a": 1}, {"a": 1, "b": "", "c": 0}], [{}, {"a": 1, "b": 1}, {"b": ""}]),
    ],
)
def test_schemas_are_strict(kind: Any, fitting: list[Any], others: list[Any]) -> None:
    assert all(fits(value, kind) for value in fitting)
    assert not any(fits(value, kind) for value in others)


def test_an_artifact_of_an_unknown_kind_is_damaged(tmp_path: Path) -> None:
    digested(tmp_path / "a", {"kind": "../x", "fingerprint": ""})
    with pytest.raises(
        CorruptArtifactError, match=r"manifest.kind: found '../x', expected dataset, rep"
    ):
        open_artifact(tmp_path / "a")


# Recipes and options


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = " + "[" * 50_000, "is not TOML"),
        ("a = " + "9" * 5_000, "is not TOML"),
        ("[[convert]]\nsource = '~nobody-of-this-name/x'\n", "no such user"),
        (
            "[[train]]\n"
            + "".join(f"{k} = {list(range(1, 101))}\n" for k in ("seed", "epochs", "crops")),
            "more than 10,000 jobs",
        ),
        ("[[train]]\nprior = 'none'\nlr = nan\ndataset = 'images'\n", "--lr nan"),
    ],
)
@pytest.mark.timeout(20)
def test_recipes_without_end_are_refused(
    tmp_path: Path, dataset: Path, text: str, message: str
) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(ChoiceError, match=message):
        load_recipe(path, Workspace(dataset.parents[1]))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["lr", "weight_decay", "data_ratio", "checkpoint_minutes"])
def test_options_are_finite_numbers(name: str, value: float) -> None:
    with pytest.raises(ChoiceError, match="expected a number"):
        check_options(TrainSettings(**{name: value}))
