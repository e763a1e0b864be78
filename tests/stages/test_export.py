"""`rela export`: files for other programs, loaded by what is printed, in a process that has no rela.

- what the printed lines load gives the outputs of the run's backbone: torchvision, timm, ONNX;
- a format that does not fit is refused with what fits; timm's twins are proved, not believed;
- features in HDF5 are the cached ones, with names, for plain h5py;
- a file appears whole or not at all, and replaces another only with --force.
"""

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from click.testing import Result
from command_line import run_rela
from finished_runs import finished_run, sample_images
from pictures import picture
from PIL import Image
from safetensors import safe_open

from rela.errors import ChoiceError
from rela.models.backbones import build_backbone
from rela.models.onnx_export import require_onnx
from rela.models.timm_models import is_timm_twin
from rela.pipeline.errors import AlreadyPublishedError
from rela.pipeline.files import clear_abandoned_files, replacing
from rela.priors.earlier_run import load_backbone, read_identity

REPOSITORY = Path(__file__).parents[2]
RUN, CNN = "first", "shufflenet_v2_x0_5"
FRESH_PROCESS = """
import json, sys
import numpy as np

images = np.load("images.npy")
for number, snippet in enumerate(json.load(open("snippets.json"))):
    found = {}
    exec(snippet, found)
    if "onnxruntime" in found:
        features = found["model"](images)
    else:
        import torch
        with torch.inference_mode():
            features = found["model"](torch.from_numpy(images)).numpy()
    np.save(f"{number}.npy", features)
assert "rela" not in sys.modules
"""


@pytest.fixture
def rela(
    tmp_path: Path, small_tree: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    """The command line in a directory whose workspace has the data set `images`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RELA_WORKSPACE", raising=False)
    run_rela("convert", small_tree)
    return run_rela


@pytest.fixture
def make_run(tmp_path: Path, rela: Callable[..., Result]) -> Callable[..., Path]:
    """make_run("resnet18", "name") → the directory of a finished run of that model."""

    def make(model: str = CNN, name: str = RUN) -> Path:
        return finished_run(tmp_path / "workspace", "images", model, name).path

    return make


def assert_same_features(found: np.ndarray, expected: torch.Tensor) -> None:
    """Up to float32's rounding: both sides are some 2e-5 of the largest feature off those in float64."""
    assert found.shape == tuple(expected.shape)
    difference = (torch.from_numpy(found) - expected).abs().max()
    assert difference < 1e-4 * expected.abs().max()


def test_what_is_printed_loads_the_run_s_backbone_in_a_process_without_rela(
    rela: Callable[..., Result], make_run: Callable[..., Path], tmp_path: Path
) -> None:
    exports = [
        ("resnet18", "torchvision", "a.pth"),
        ("resnet18", "timm", "c.safetensors"),
        ("squeezenet1_1", "torchvision", "e.pth"),  # whose classifier is no linear layer
        ("mobilenet_v3_small", "safetensors", "f.safetensors"),
        ("resnet18_small", "safetensors", "g.safetensors"),
        ("timm:test_vit", "timm", "h.pth"),
        (CNN, "onnx", "j.onnx"),
    ]
    runs = {model: make_run(model, model.replace(":", "-")) for model in {e[0] for e in exports}}
    snippets = []
    for model, to, output in exports:
        result = rela(
            "export", runs[model].name, "--to", to, "--output", tmp_path / output, "--json"
        )
        snippets.append(json.loads(result.stdout)["snippet"])
    words = rela("export", "resnet18", "--to", "torchvision").stdout
    snippets.append(words.partition("load it with:\n\n")[2])
    assert (tmp_path / "resnet18-torchvision.pth").is_file()

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    images = sample_images()
    np.save(elsewhere / "images.npy", images.numpy())
    (elsewhere / "snippets.json").write_text(json.dumps(snippets))
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    subprocess.run(
        [sys.executable, "-c", FRESH_PROCESS], cwd=elsewhere, check=True, env=environment
    )
    for number, model in enumerate([*(e[0] for e in exports), "resnet18"]):
        directory = runs[model]
        with torch.inference_mode():
            expected = load_backbone(directory, read_identity(directory))(images)
        # it does look at them
        assert (expected[0] - expected[1]).abs().max() > 0.1 * expected.abs().max(), model
        assert_same_features(np.load(elsewhere / f"{number}.npy"), expected)


def test_the_run_may_be_left_out_if_it_is_require_one_one(
    rela: Callable[..., Result], make_run: Callable[..., Path], tmp_path: Path
) -> None:
    assert "no finished run" in rela("export", exit_code=2).stderr
    make_run()
    rela("export")
    with safe_open(tmp_path / f"{RUN}.safetensors", "pt") as file:
        told = json.loads(file.metadata()["rela"])
    assert told["arch"] == CNN
    assert told["preprocessing"]["crop"] == 32
    make_run(name="second")
    assert "first, second" in rela("export", exit_code=2).stderr


@pytest.mark.parametrize(
    ("model", "to", "problem", "fits"),
    [
        ("resnet18_small", "torchvision", "stem is for small images", ""),
        ("resnet18_small", "timm", "stem is for small images", ""),
        (CNN, "timm", "timm has no twin", "torchvision, "),
        ("timm:test_vit", "torchvision", "torchvision does not have", "timm, "),
    ],
)
def test_a_format_that_does_not_fit_is_refused_with_those_that_do(
    rela: Callable[..., Result], make_run: Callable[..., Path], tmp_path: Path,
    model: str, to: str, problem: str, fits: str,
) -> None:  # fmt: skip
    make_run(model)
    before = sorted(tmp_path.iterdir())
    [line] = rela("export", "--to", to, exit_code=2).stderr.splitlines()
    assert problem in line
    assert line.endswith(f"--to {fits}safetensors, onnx, hdf5-features")
    assert sorted(tmp_path.iterdir()) == before


def test_a_twin_has_the_same_tensors_and_gives_the_same_features() -> None:
    resnet = build_backbone("resnet18", 64, seed=0)
    assert is_timm_twin("resnet18", resnet, 64)
    assert is_timm_twin("densenet121", build_backbone("densenet121", 64, seed=0), 64)
    assert not is_timm_twin("shufflenet_v2_x0_5", build_backbone(CNN, 64, seed=0), 64)
    assert not is_timm_twin("resnet34", resnet, 64)
    resnet.maxpool = torch.nn.Identity()  # the same tensors, another computation
    assert not is_timm_twin("resnet18", resnet, 64)


def test_onnx_takes_any_number_of_images_and_says_what_they_must_be(
    rela: Callable[..., Result], make_run: Callable[..., Path], tmp_path: Path
) -> None:
    import onnx
    import onnxruntime

    directory = make_run()
    rela("export", "--to", "onnx")
    path = tmp_path / f"{RUN}.onnx"
    told = {p.key: p.value for p in onnx.load(path).metadata_props}
    assert json.loads(told["preprocessing"])["mean"] == [0.485, 0.456, 0.406]
    assert "divided by 255" in told["preprocessing_in_words"]
    session = onnxruntime.InferenceSession(path)
    backbone = load_backbone(directory, read_identity(directory))
    for count in (1, 5):
        images = sample_images(count)
        [found] = session.run(None, {"images": images.numpy()})
        with torch.inference_mode():
            expected = backbone(images)
        assert_same_features(found, expected)


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_without_onnx_the_command_that_installs_it_is_named(
    package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        ChoiceError, match=rf"{package} is needed for ONNX files; .*pip install 'rela\[onnx\]'"
    ):
        require_onnx()


def test_features_are_the_cached_ones_with_names_for_plain_h5py(
    rela: Callable[..., Result], make_run: Callable[..., Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    make_run()
    rela("embed", "--prior", f"run:{RUN}")
    rela("embed", "--prior", RUN, "--split", "val")

    def refuse(*arguments: Any) -> None:
        raise AssertionError("embedded again")

    with monkeypatch.context() as patch:
        patch.setattr("rela.representations.embedder.Embedder", refuse)
        words = rela("export", "--to", "hdf5-features").stdout
    with h5py.File(tmp_path / f"{RUN}-features.h5") as file:
        assert file.attrs["run"] == RUN
        assert json.loads(file.attrs["preprocessing"])["resize"] == 32
        assert "row i" in file.attrs["layout"]
        names = file["class_names"].asstr()[:]
        assert list(names) == ["ant", "bee", "cat"]
        for split, count in (("train", 24), ("val", 12)):
            [cached] = (tmp_path / "workspace/representations").glob(f"*-{split}-{RUN}-*/*.h5")
            with h5py.File(cached) as other:
                assert np.array_equal(file[split]["features"][:], other["representations"][:])
            paths, labels = file[split]["paths"].asstr()[:], file[split]["labels"][:]
            assert len(paths) == count
            assert [names[label] for label in labels] == [p.split("/")[1] for p in paths]
            assert all((tmp_path / "images" / path).is_file() for path in paths)
    found: dict[str, Any] = {}
    exec(words.partition("load it with:\n\n")[2], found)
    assert found["features"].shape == (24, 1024)
    assert found["paths"][0] == "train/ant/00.png"


def test_features_of_another_data_set_with_odd_names_and_no_labels(
    rela: Callable[..., Result], make_run: Callable[..., Path], tmp_path: Path
) -> None:
    make_run()
    (tmp_path / "flat").mkdir()
    odd = b"\xff\xfe, \xc3\xa9\n.png"
    for name in (b"a.png", odd):
        with open(os.path.join(os.fsencode(tmp_path / "flat"), name), "wb") as file:  # noqa: PTH118
            Image.fromarray(picture(3)).save(file, "PNG")
    rela("convert", tmp_path / "flat")
    rela("export", "--to", "hdf5-features", "--dataset", "flat", "--dtype", "float32")
    with h5py.File(tmp_path / f"{RUN}-features.h5") as file:
        assert file["train/features"].dtype == np.float32
        assert sorted(file["train/paths"][:]) == sorted([b"a.png", odd])
        assert file["train/labels"][:].tolist() == [-1, -1]
        assert len(file["class_names"]) == 0
    with h5py.File(tmp_path / f"{RUN}-features.h5") as file:
        texts = file["train/paths"].asstr("utf-8", "surrogateescape")[:]
    assert sorted(os.fsencode(text) for text in texts) == sorted([b"a.png", odd])


def test_what_is_there_is_replaced_with_force_alone(
    rela: Callable[..., Result], make_run: Callable[..., Path], tmp_path: Path
) -> None:
    make_run()
    path = tmp_path / "mine.pth"
    path.write_bytes(b"something else")
    options = ("export", "--to", "torchvision", "--output", path)
    [line] = rela(*options, exit_code=2).stderr.splitlines()
    assert "--force" in line and str(path) in line
    assert path.read_bytes() == b"something else"
    rela(*options, "--force")
    assert set(torch.load(path, weights_only=True)) == set(build_backbone(CNN, 32).state_dict())


@pytest.mark.parametrize("clobber", [True, False])
def test_a_full_disk_leaves_what_was_there(
    rela: Callable[..., Result], make_run: Callable[..., Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, clobber: bool,
) -> None:  # fmt: skip
    make_run()
    path = tmp_path / "mine.pth"
    if clobber:
        path.write_bytes(b"something else")
    before = sorted(tmp_path.iterdir())

    def full(self: Path, content: bytes) -> None:
        with open(self, "wb") as file:
            file.write(content[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        options = ("export", "--to", "torchvision", "--output", path, *["--force"] * clobber)
        message = rela(*options, exit_code=74).stderr
    assert "choose another --output" in message
    assert sorted(tmp_path.iterdir()) == before
    assert not clobber or path.read_bytes() == b"something else"


def test_a_process_killed_while_it_writes_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(b"something else")
    program = (
        "import os, signal, sys; from pathlib import Path; from rela.pipeline.files import replacing\n"
        "with replacing(Path(sys.argv[1])) as mine:\n"
        "    mine.write_bytes(b'half'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, path], cwd=REPOSITORY)
    assert killed.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"something else"
    assert len(list(tmp_path.iterdir())) == 2
    clear_abandoned_files(tmp_path)  # as the next export there does
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"

    def write() -> None:
        with replacing(path, clobber=False) as mine:
            mine.write_bytes(b"mine")
            path.write_bytes(b"theirs")

    with pytest.raises(AlreadyPublishedError, match="just made"):
        write()
    assert path.read_bytes() == b"theirs"
    assert list(tmp_path.iterdir()) == [path]


def test_mistakes_are_told_before_anything_is_computed(
    rela: Callable[..., Result], make_run: Callable[..., Path], tmp_path: Path
) -> None:
    make_run()
    expected = {
        ("--to", "onnx", "--output", "a.pth"): (2, ".onnx for --to onnx"),
        ("--to", "timm", "--output", "a.bin"): (2, ".safetensors or .pth"),
        ("--output", "nowhere/a.safetensors"): (74, "no such folder"),
        ("--to", "onnx", "--dataset", "images"): (2, "--to hdf5-features"),
        ("--to", "hdf5-features", "--dataset", "nope"): (2, "found images"),
        ("--to", "jax"): (2, "'torchvision', 'timm'"),
    }
    for options, (status, words) in expected.items():
        assert words in rela("export", *options, exit_code=status).stderr
    assert "found first" in rela("export", "nope", exit_code=2).stderr


def test_changed_weights_are_not_handed_on(
    rela: Callable[..., Result], make_run: Callable[..., Path]
) -> None:
    path = make_run() / "backbone.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert "was changed after the run finished" in rela("export", exit_code=65).stderr
