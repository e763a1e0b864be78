"""What decides the last bits of features, and what is said of it where it differs."""

from dataclasses import replace

import pytest
import torch

from rela.stages.embed.arithmetic import Arithmetic, arithmetic_here

HERE = Arithmetic("a CPU", 2, {"torch": "2.10", "timm": "1.0"}, 128, "torch", "eager", "float32")


@pytest.mark.parametrize(
    ("here", "other", "words"),
    [
        ({}, {}, ""),
        ({}, {"device": "an abacus"}, "on an abacus"),
        (
            {},
            {"versions": {"torch": "2.9", "numpy": "2"}},
            "by other versions of numpy, timm, torch",
        ),
        ({}, {"threads": 1}, "by 1 thread, not 2"),
        ({}, {"images_per_batch": 64}, "in batches of 64, not 128"),
        ({}, {"engine": "onednn"}, "by engine onednn in float32"),
        ({}, {"number_format": "bf16"}, "by engine eager in bf16"),
        # not chosen yet: it will be the same, if it is chosen in the same way
        ({"engine": "", "number_format": ""}, {"engine": "onednn"}, ""),
        ({}, {"asked": "auto"}, "with --engine auto; add that"),
        ({"asked": "eager"}, {}, ""),
        ({"asked": "onednn"}, {}, "with --engine torch; add that"),
        ({"asked": "openvino", "number_format": ""}, {"asked": "auto", "engine": "openvino"}, ""),
    ],
)
def test_differences_are_told(here: dict, other: dict, words: str):
    assert replace(HERE, **here).difference(replace(HERE, **other)) == words


def test_this_process_is_described():
    found = arithmetic_here(torch.device("cpu"), 32, "auto")
    assert torch.backends.cpu.get_cpu_capability() in found.device
    assert found.versions["torch"] == torch.__version__.partition("+")[0]
    assert {"numba", "ffcv", "rela", "torchvision"} <= found.versions.keys()
    assert not {"python", "lightly", "h5py"} & found.versions.keys()
    assert found.threads == torch.get_num_threads() and found.images_per_batch == 32
