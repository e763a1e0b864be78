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
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from command_line import Rela, read_json, run_python
from damages import flip_bit
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

RUN, CNN = "first", "shufflenet_v2_x0_5"
MakeRun = Callable[..., Path]
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
def make_run(tmp_path: Path, images: Path) -> MakeRun:
    """make_run("resnet18", "name") → the directory of a finished run of that model."""
    root = tmp_path / "workspace"
    return lambda model=CNN, name=RUN: finished_run(root, "images", model, name).path


@torch.inference_mode()
def features_of(run: Path, images: torch.Tensor) -> torch.Tensor:
    return load_backbone(run, read_identity(run))(images)


def assert_same_features(found: np.ndarray, expected: torch.Tensor) -> None:
    """Up to float32's rounding: both sides are some 2e-5 of the largest feature off those in float64."""
    assert found.shape == tuple(expected.shape)
    difference = (torch.from_numpy(found) - expected).abs().max()
    assert difference < 1e-4 * expected.abs().max()


def test_printed_snippets_load_the_backbone_without_rela(
    rela: Rela, make_run: MakeRun, tmp_path: Path
):
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
        options = ("--to", to, "--output", tmp_path / output, "--json")
        snippets.append(read_json(rela("export", runs[model].name, *options))["snippet"])
    words = rela("export", "resnet18", "--to", "torchvision").stdout
    snippets.append(words.partition("load it with:\n\n")[2].partition("\n\nnext: ")[0])
    assert (tmp_path / "resnet18-torchvision.pth").is_file()

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    images = sample_images()
    np.save(elsewhere / "images.npy", images.numpy())
    (elsewhere / "snippets.json").write_text(json.dumps(snippets))
    run_python("-c", FRESH_PROCESS, cwd=elsewhere, check=True, env={"PYTHONPATH": ""})
    for number, model in enumerate([*(e[0] for e in exports), "resnet18"]):
        expected = features_of(runs[model], images)
        # it does look at them
        assert (expected[0] - expected[1]).abs().max() > 0.1 * expected.abs().max(), model
        assert_same_features(np.load(elsewhere / f"{number}.npy"), expected)


def test_the_only_run_may_be_left_out(rela: Rela, make_run: MakeRun, tmp_path: Path):
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
    rela: Rela, make_run: MakeRun, tmp_path: Path,
    model: str, to: str, problem: str, fits: str,
):  # fmt: skip
    make_run(model)
    before = sorted(tmp_path.iterdir())
    [line] = rela("export", "--to", to, exit_code=2).stderr.splitlines()
    assert problem in line
    assert line.endswith(f"--to {fits}safetensors, onnx, hdf5-features, parquet, npy, faiss")
    assert sorted(tmp_path.iterdir()) == before


def test_a_twin_has_the_same_tensors_and_gives_the_same_features():
    resnet = build_backbone("resnet18", 64, seed=0)
    assert is_timm_twin("resnet18", resnet, 64)
    assert is_timm_twin("densenet121", build_backbone("densenet121", 64, seed=0), 64)
    assert not is_timm_twin("shufflenet_v2_x0_5", build_backbone(CNN, 64, seed=0), 64)
    assert not is_timm_twin("resnet34", resnet, 64)
    resnet.maxpool = torch.nn.Identity()  # the same tensors, another computation
    assert not is_timm_twin("resnet18", resnet, 64)


def test_onnx_takes_any_number_of_images_and_says_what_they_must_be(
    rela: Rela, make_run: MakeRun, tmp_path: Path
):
    directory = make_run()
    rela("export", "--to", "onnx")
    path = tmp_path / f"{RUN}.onnx"
    told = {p.key: p.value for p in onnx.load(path).metadata_props}
    assert json.loads(told["preprocessing"])["mean"] == [0.485, 0.456, 0.406]
    assert "divided by 255" in told["preprocessing_in_words"]
    session = onnxruntime.InferenceSession(path)
    for count in (1, 5):
        images = sample_images(count)
        [found] = session.run(None, {"images": images.numpy()})
        assert_same_features(found, features_of(directory, images))


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_without_onnx_the_command_that_installs_it_is_named(
    package: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, package, None)
    words = rf"{package} is needed for ONNX files; .*pip install 'rela\[onnx\]'"
    with pytest.raises(ChoiceError, match=words):
        require_onnx()


def test_features_are_the_cached_ones_with_names_for_plain_h5py(
    rela: Rela, make_run: MakeRun, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    make_run()
    rela("embed", "--prior", f"run:{RUN}")
    rela("embed", "--prior", RUN, "--split", "val")

    monkeypatch.setattr("rela.representations.embedder.Embedder", None)  # it embeds nothing
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
    exec(words.partition("load it with:\n\n")[2].partition("\n\nnext: ")[0], found)
    assert found["features"].shape == (24, 1024)
    assert found["paths"][0] == "train/ant/00.png"


def test_features_of_another_data_set_with_odd_names_and_no_labels(
    rela: Rela, make_run: MakeRun, tmp_path: Path
):
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
        texts = file["train/paths"].asstr("utf-8", "surrogateescape")[:]
    assert sorted(os.fsencode(text) for text in texts) == sorted([b"a.png", odd])


def test_a_file_is_replaced_only_with_force(rela: Rela, make_run: MakeRun, tmp_path: Path):
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
def test_a_full_disk_keeps_the_old_file(
    rela: Rela, make_run: MakeRun, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, clobber: bool,
):  # fmt: skip
    make_run()
    path = tmp_path / "mine.pth"
    if clobber:
        path.write_bytes(b"something else")
    before = sorted(tmp_path.iterdir())

    def full(self: Path, content: bytes) -> None:
        with open(self, "wb") as file:
            file.write(content[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    options = ("export", "--to", "torchvision", "--output", path, *["--force"] * clobber)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        message = rela(*options, exit_code=74).stderr
    assert "choose another --output" in message
    assert sorted(tmp_path.iterdir()) == before
    assert not clobber or path.read_bytes() == b"something else"


def test_a_killed_process_keeps_the_old_file(tmp_path: Path):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"something else")
    program = (
        "import os, signal, sys; from pathlib import Path; from rela.pipeline.files import replacing\n"
        "with replacing(Path(sys.argv[1])) as mine:\n"
        "    mine.write_bytes(b'half'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert run_python("-c", program, path).returncode == -signal.SIGKILL
    assert path.read_bytes() == b"something else"
    assert len(list(tmp_path.iterdir())) == 2
    clear_abandoned_files(tmp_path)  # as the next export there does
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_appears_meanwhile_is_not_replaced(tmp_path: Path):
    path = tmp_path / "weights.pth"

    def write() -> None:
        with replacing(path, clobber=False) as mine:
            mine.write_bytes(b"mine")
            path.write_bytes(b"theirs")

    with pytest.raises(AlreadyPublishedError, match="just made"):
        write()
    assert path.read_bytes() == b"theirs"
    assert list(tmp_path.iterdir()) == [path]


def test_mistakes_are_reported_before_any_work(rela: Rela, make_run: MakeRun, tmp_path: Path):
    make_run()
    (tmp_path / "images" / "first-npy").mkdir()
    expected = {
        ("--to", "onnx", "--output", "a.pth"): (2, ".onnx for --to onnx"),
        ("--to", "timm", "--output", "a.bin"): (2, ".safetensors or .pth"),
        ("--output", "nowhere/a.safetensors"): (74, "no such folder"),
        ("--to", "onnx", "--dataset", "images"): (2, "--to hdf5-features, parquet, npy or faiss"),
        ("--to", "onnx", "--prior", "first"): (
            2,
            "--prior requires --to hdf5-features, parquet, npy or",
        ),
        ("first", "--to", "npy", "--prior", "first"): (2, "found RUN first and --prior first"),
        ("--to", "npy", "--prior", "first"): (2, "`rela embed images --prior first` first"),
        ("--dtype", "float32", "--threads", 2): (
            2,
            "--dtype, --threads requires --to hdf5-features, pa",
        ),
        ("--to", "npy", "--prior", "first", "--device", "cpu"): (
            2,
            "that are cached; remove --device",
        ),
        ("--to", "npy", "--output", "images"): (
            2,
            "images/first-npy already exists and is no exported",
        ),
        ("--to", "hdf5-features", "--dataset", "nope"): (2, "found images"),
        ("--to", "jax"): (2, "expected one of torchvision, timm"),
    }
    for options, (status, words) in expected.items():
        assert words in rela("export", *options, exit_code=status).stderr
    assert "found first" in rela("export", "nope", exit_code=2).stderr


def test_a_read_only_folder_is_refused_before_any_work(
    rela: Rela, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
):
    make_run()
    monkeypatch.setattr("rela.representations.embedder.Embedder", None)
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    for command in (("export",), ("export", "--to", "npy"), ("report",)):
        [line] = rela(*command, exit_code=74).stderr.splitlines()
        assert line == "rela: cannot write in .: it is read-only; choose a writable --output"


def test_changed_weights_are_not_exported(rela: Rela, make_run: MakeRun):
    path = make_run() / "backbone.safetensors"
    flip_bit(path, -1)
    assert "was changed after the run finished" in rela("export", exit_code=65).stderr
