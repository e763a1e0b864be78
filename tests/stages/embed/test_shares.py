"""Any number of processes, however they are started, embed to the same bytes."""

import hashlib
from pathlib import Path

import pytest
from command_line import Rela

PRIOR = ("--prior", "random:shufflenet_v2_x0_5", "--image-size", 32, "--batch-size", 4)
STARTS: dict[str, list[dict[str, str] | str]] = {
    "one process": [{}],
    "--shard, in another order": ["2/3", "0/3", "1/3"],
    "torchrun, 2 processes": [{"RANK": str(rank), "WORLD_SIZE": "2"} for rank in (0, 1)],
    "SLURM array 1-3": [
        {f"SLURM_ARRAY_TASK_{k}": v for k, v in (("ID", task), ("MIN", "1"), ("COUNT", "3"))}
        for task in "231"
    ],
}


@pytest.fixture(scope="module")
def digests() -> dict[str, str]:
    return {}


@pytest.mark.parametrize("how", STARTS)
def test_every_start_gives_the_same_representations(
    rela: Rela, images: Path, monkeypatch: pytest.MonkeyPatch, digests: dict[str, str], how: str
):
    monkeypatch.setattr("rela.representations.matrix_file.ROWS_PER_PART", 4)  # 6 parts
    workspace = Path("workspace")
    for number, start in enumerate(STARTS[how]):
        environment, words = ({}, ("--shard", start)) if isinstance(start, str) else (start, ())
        assert not list(workspace.glob("representations/*/representations.h5")), number
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            rela("embed", *PRIOR, *words)
    [path] = workspace.glob("representations/*/representations.h5")
    digests[how] = hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(set(digests.values())) == 1


def test_shares_of_several_layers_and_maps(
    rela: Rela, small_tree: Path, monkeypatch: pytest.MonkeyPatch
):
    """Each process computes its share of all of them in one pass, and says once how large they become."""
    monkeypatch.setattr("rela.representations.matrix_file.ROWS_PER_PART", 4)
    words = ("embed", "--prior", "random:timm:test_resnet", "--image-size", 64, "--dense", 2)
    layers = ("--layer", "layer2", "--layer", "pooled")
    made = {}
    for workspace, shares in {"alone": ["0/1"], "shared": ["1/2", "0/2"]}.items():
        rela("--workspace", workspace, "convert", small_tree)
        for share in shares:
            said = rela("--workspace", workspace, *words, *layers, "--shard", share).output
            assert said.count("on disk") == 2 and said.count(" sees ") == 1
            is_last = share == shares[-1]
            assert said.count("other shards still work") == 4 * (not is_last)
        files = sorted(Path(workspace).glob("representations/*/representations.h5"))
        made[workspace] = [(file.parent.name, file.read_bytes()) for file in files]
    assert len(made["alone"]) == 4 and made["alone"] == made["shared"]
