"""Weight files (rela.models.weights).

- the digest of weights depends on names, types, shapes and values, never on file format or layout;
- strict loading names every missing, unexpected and misshapen key and then loads nothing;
- a hostile pickle is not executed; what is not a state dict is refused;
- saved weights load into the torchvision model they came from.
"""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision.models as tv
from damages import RunsWhenUnpickled
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rela.errors import DataError, UnavailableError
from rela.models.weights import load_strict, read_state_dict, save_weights, state_sha256


def small_model(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def test_the_digest_is_the_same_for_every_file_format(tmp_path: Path):
    state = tv.mobilenet_v3_small().state_dict()
    torch.save(state, tmp_path / "new.pth")
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "wrapped.pth")
    save_file(state, tmp_path / "weights.safetensors")
    digests = {state_sha256(read_state_dict(path)) for path in sorted(tmp_path.iterdir())}
    assert digests == {state_sha256(state)}


def test_the_digest_ignores_memory_layout_and_the_order_of_names():
    state = small_model().state_dict()
    laid_out = {
        key: value.to(memory_format=torch.channels_last) if value.ndim == 4 else value
        for key, value in reversed(state.items())
    }
    assert laid_out["0.weight"].stride() != state["0.weight"].stride()
    assert state_sha256(laid_out) == state_sha256(state)


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state["0.weight"].view(-1)[5].mul_(-1),
        lambda state: state.update({"1.num_batches_tracked": torch.tensor(1)}),
        lambda state: state.update({"renamed": state.pop("3.bias")}),
        lambda state: state.update({"3.weight": state["3.weight"].reshape(4, 2)}),
        lambda state: state.update({"3.weight": state["3.weight"].view(torch.int32)}),
        lambda state: state.pop("3.bias"),
    ],
    ids=["one value", "one counter", "a name", "a shape", "a type", "one tensor less"],
)
def test_the_digest_notices(change: Callable[[dict[str, Tensor]], object]):
    before = state_sha256(small_model().state_dict())
    state = {key: value.clone() for key, value in small_model().state_dict().items()}
    change(state)
    assert state_sha256(state) != before


def test_everything_that_does_not_fit_is_named_and_nothing_is_loaded():
    model, state = small_model(0), small_model(1).state_dict()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for key in ("1.bias", "1.running_mean"):
        del state[key]
    state["extra.weight"] = torch.zeros(1)
    state["3.weight"] = torch.zeros(2, 5)
    with pytest.raises(DataError) as caught:
        load_strict(model, state, ["fc.weight"], "some file")
    assert str(caught.value).startswith(
        "some file does not fit the architecture; missing: 1.bias, 1.running_mean; "
        "unexpected: extra.weight; misshapen: 3.weight [2, 5] instead of [2, 4]. Nothing was loaded"
    )
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_what_fits_is_loaded_completely_and_the_classifier_is_left_out():
    model, state = small_model(0), small_model(1).state_dict()
    load_strict(model, {**state, "fc.weight": torch.zeros(9)}, ["fc.weight"], "some file")
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_a_hostile_pickle_is_not_executed(tmp_path: Path, writer: str):
    path, trace = tmp_path / "weights.pth", tmp_path / "executed"
    content = {"weight": torch.zeros(2), "bomb": RunsWhenUnpickled(trace)}
    if writer == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(RunsWhenUnpickled(trace)))
    with pytest.raises(DataError, match=r"weights\.pth"):
        read_state_dict(path)
    assert not trace.exists()


@pytest.mark.parametrize(
    "content", [[torch.zeros(2)], torch.zeros(2), {}, {"weight": torch.zeros(2), "epoch": 3}, 7]
)
def test_what_is_not_a_state_dict_is_refused(tmp_path: Path, content: object):
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(DataError, match="expected a state dict"):
        read_state_dict(tmp_path / "weights.pth")


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
@pytest.mark.parametrize("content", [b"", b"<html>404</html>", b"PK\x03\x04 half a zip", None])
def test_truncated_and_other_files_are_refused(tmp_path: Path, name: str, content: bytes | None):
    path = tmp_path / name
    if content is None:
        write = save_file if path.suffix == ".safetensors" else torch.save
        write(small_model().state_dict(), path)
        content = path.read_bytes()[:-100]
    path.write_bytes(content)
    with pytest.raises(DataError, match=name):
        read_state_dict(path)


def test_a_missing_file_is_unavailable(tmp_path: Path):
    with pytest.raises(UnavailableError, match="nowhere"):
        read_state_dict(tmp_path / "nowhere.pth")


def test_saved_weights_load_into_the_same_torchvision_model(tmp_path: Path):
    model = tv.mobilenet_v3_small().to(memory_format=torch.channels_last)
    save_weights(tmp_path / "backbone.safetensors", model, {"arch": "mobilenet_v3_small"})
    other = tv.mobilenet_v3_small()
    other.load_state_dict(load_file(tmp_path / "backbone.safetensors"), strict=True)
    assert state_sha256(other.state_dict()) == state_sha256(model.state_dict())
    with safe_open(tmp_path / "backbone.safetensors", "pt") as file:
        assert json.loads(file.metadata()["rela"]) == {"arch": "mobilenet_v3_small"}


def test_equal_weights_are_equal_bytes(tmp_path: Path):
    model, metadata = nn.Linear(2, 2), {"arch": "linear", "image_size": "2", "epochs": "3"}
    contents = set()
    for _ in range(30):  # safetensors itself writes several entries in random order
        save_weights(tmp_path / "backbone.safetensors", model, metadata)
        contents.add((tmp_path / "backbone.safetensors").read_bytes())
    assert len(contents) == 1
