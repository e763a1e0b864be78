"""Rows that need no forward pass; what is stored equals a fresh embedding elsewhere, byte by byte.

- a data set that gained, lost, renamed or reordered images, that shares some, or that holds copies;
- rows of another arithmetic, and damaged ones, are not used, and it is said why;
- an interrupted embedding goes on, also without the rows that it began with;
- with crops, rows of images that keep their place;
- maps, if their projection stays; with the vectors they take one pass, and two processes share it.
"""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from command_line import Rela, read_json
from damages import flip_bit
from PIL import Image

from rela.pipeline import parts
from rela.pipeline.fingerprint import file_sha256
from rela.pipeline.lease import Leases
from rela.pipeline.manifest import Manifest
from rela.pipeline.parts import PartStore
from rela.representations.embedder import Embedder
from rela.stages.embed import embed

EMBED = ("--prior", "random:timm:test_resnet", "--image-size", 32, "--batch-size", 4)
BEFORE = {f"{number:02}": number for number in range(18)}
CHANGES: dict[str, tuple[dict[str, int], int, str]] = {
    "gained": ({"00a": 50, **BEFORE}, 1, "reused 18 of 19 rows from {}; 1 image is embedded"),
    "lost": (
        {name: number for name, number in BEFORE.items() if number % 9},
        0,
        "reused 16 of 16 rows from {}; 0 images are embedded",
    ),
    "renamed and reordered": (
        {f"{40 - number}": number for number in range(18)},
        0,
        "reused 18 of 18 rows from {}; 0 images are embedded",
    ),
    "shares some": (
        {f"{number}": number for number in range(11, 31)},
        13,
        "reused 7 of 20 rows from {}; 13 images are embedded",
    ),
    "copies": (
        {"00a": 50, **BEFORE, "30": 50, "31": 3},
        1,
        "reused 19 of 21 rows from {}; 1 image is a copy of another; 1 image is embedded",
    ),
}


def convert(rela: Rela, workspace: str, name: str, images: dict[str, int]) -> None:
    """A data set of these images: names of files, and which picture each is."""
    folder = Path(workspace, f"{name}-images")
    folder.mkdir(parents=True)
    for file, number in images.items():
        pixels = np.random.default_rng(number).integers(0, 256, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{file}.png")
    rela("--workspace", workspace, "convert", folder, "--name", name, "--workers", 1)


def artifact(workspace: str, name: str, maps: bool = False) -> Path:
    found = Path(workspace).glob(f"representations/{name}-*")
    [path] = [each for each in found if (each / "format.bin").is_file() == maps]
    return path


def content(workspace: str, name: str, maps: bool = False) -> tuple[bytes, Any]:
    """The features, and what the manifest says of them, such as the digest of a projection."""
    path = artifact(workspace, name, maps)
    manifest = read_json(path / "manifest.json")
    del manifest["provenance"], manifest["manifest_sha256"]
    return (path / "representations.h5").read_bytes(), manifest


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Images of every call of the prior; 5 parts or so."""
    monkeypatch.setattr("rela.representations.matrix_file.ROWS_PER_PART", 4)
    found: list[int] = []
    features = Embedder.features

    def counting(self: Embedder, images: torch.Tensor) -> torch.Tensor:
        found.append(len(images))
        return features(self, images)

    monkeypatch.setattr(Embedder, "features", counting)
    return found


def fresh(rela: Rela, images: dict[str, int], *options: object) -> tuple[bytes, Any]:
    convert(rela, "fresh", "after", images)
    rela("--workspace", "fresh", "embed", "after", *EMBED, *options)
    return content("fresh", "after")


@pytest.mark.parametrize("change", CHANGES)
def test_only_new_images_are_embedded(rela: Rela, counts: list[int], change: str):
    images, num_new, says = CHANGES[change]
    convert(rela, "workspace", "before", BEFORE)
    rela("embed", "before", *EMBED)
    assert counts == [4] * 5
    counts.clear()
    convert(rela, "workspace", "after", images)
    said = rela("embed", "after", *EMBED).output
    assert says.format(artifact("workspace", "before").name) in said
    assert counts == [4] * -(-num_new // 4)
    assert content("workspace", "after") == fresh(rela, images)
    known, new = (
        read_json(artifact("workspace", n) / "manifest.json")["provenance"]
        for n in ("before", "after")
    )
    assert new["seconds"] >= (len(images) - num_new - 2) / len(BEFORE) * known["seconds"]
    assert new["arithmetic"] == known["arithmetic"]


def test_copies_are_embedded_once(rela: Rela, counts: list[int]):
    images = {f"{number:02}": number % 6 for number in range(18)}
    convert(rela, "workspace", "after", images)
    said = rela("embed", "after", *EMBED).output
    assert "12 images are copies of others; 6 images are embedded" in said
    assert counts == [4, 4]
    with h5py.File(artifact("workspace", "after") / "representations.h5") as file:
        rows, digests = file["representations"][:], file["image_sha256"][:]
    assert np.array_equal(rows, np.tile(rows[:6], (3, 1)))
    assert np.array_equal(digests, np.tile(digests[:6], (3, 1)))
    assert len(np.unique(digests, axis=0)) == 6


def flipped(rela: Rela, monkeypatch: pytest.MonkeyPatch) -> None:
    flip_bit(artifact("workspace", "before") / "representations.h5")


def in_two_ways(rela: Rela, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted, and resumed with other batches."""
    artifact("workspace", "before").rename("hidden")
    with monkeypatch.context() as patch:
        interrupt_after(patch, 2)
        rela("embed", "before", *EMBED, exit_code=130)
    rela("embed", "before", *EMBED, "--batch-size", 8)


def by_another_version(rela: Rela, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that recorded nothing of this."""
    path = artifact("workspace", "before")
    found = Manifest.read(path)
    del found.provenance["arithmetic"]
    found.write(path)


def with_other_rows(rela: Rela, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a GPU that computes otherwise now, whatever it is called."""
    path = artifact("workspace", "before")
    with h5py.File(path / "representations.h5", "r+") as file:
        file["representations"][4] *= 1.01
    found = Manifest.read(path)
    found.file_sha256["representations.h5"] = file_sha256(path / "representations.h5")
    found.write(path)
    monkeypatch.setattr("rela.stages.embed.rows._CHECKED_ON", ("cpu",))


def test_rows_of_another_version_of_the_key_are_not_used(
    rela: Rela, counts: list[int], monkeypatch: pytest.MonkeyPatch
):
    convert(rela, "workspace", "before", {"1": 1, "2": 2, "3": 3})
    convert(rela, "workspace", "after", {"2": 2, "1": 1, "3": 4})
    rela("embed", "before", *EMBED)
    monkeypatch.setattr("rela.priors.prior.EMBEDDING_VERSION", 2)
    assert "reused" not in rela("embed", "after", *EMBED).output


REFUSED: dict[str, tuple[Callable[..., None] | None, tuple[object, ...], str]] = {
    "batches": (None, ("--batch-size", 8), "computed in batches of 4, not 8"),
    "engine": (None, ("--engine", "onednn"), "computed with --engine eager; add that"),
    "damage": (flipped, (), "representations.h5 is damaged: SHA-256"),
    "several": (in_two_ways, (), "computed in more than one way"),
    "rows": (with_other_rows, (), "computed with other results, as the same images show here"),
    "version": (by_another_version, (), "computed in more than one way, or by an earlier version"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_rows_of_another_arithmetic_are_not_used(
    rela: Rela, counts: list[int], monkeypatch: pytest.MonkeyPatch, why: str
):
    change, options, says = REFUSED[why]
    images = {"0": 50, "1": 1, "2": 2, "3": 3, "4": 4}
    convert(rela, "workspace", "before", {f"{number}": number for number in range(9)})
    convert(rela, "workspace", "after", images)
    rela("embed", "before", *EMBED)
    if change is not None:
        change(rela, monkeypatch)
    counts.clear()
    said = rela("embed", "after", *EMBED, *options).output
    assert "not reused: " in said and says in said and "rows from" not in said
    assert sum(counts) == 8 + 4 * (why == "rows")
    if why in ("damage", "several", "rows"):
        assert content("workspace", "after") == fresh(rela, images, *options)


def interrupt_after(patch: pytest.MonkeyPatch, num_parts: int) -> None:
    write, written = PartStore.write, []

    def write_then_die(*given: Any) -> None:
        if len(written) == num_parts:
            raise KeyboardInterrupt
        written.append(given)
        write(*given)

    patch.setattr(PartStore, "write", write_then_die)


@pytest.mark.parametrize("keeps", [True, False], ids=["with its rows", "without its rows"])
def test_an_interrupted_embedding_goes_on(
    rela: Rela, counts: list[int], monkeypatch: pytest.MonkeyPatch, keeps: bool
):
    images = CHANGES["shares some"][0]
    convert(rela, "workspace", "before", BEFORE)
    rela("embed", "before", *EMBED)
    convert(rela, "workspace", "after", images)
    with monkeypatch.context() as patch:
        interrupt_after(patch, 1)
        rela("embed", "after", *EMBED, exit_code=130)
    if not keeps:
        rela("rm", "before", "--dependents")
    counts.clear()
    said = rela("embed", "after", *EMBED).output
    assert "resuming after 1 of 5 parts" in said and ("reused" in said) == keeps
    assert sum(counts) == 16
    assert content("workspace", "after") == fresh(rela, images)


MAPS = ("--image-size", 64, "--dense", 2, "--dense-width", 8)


@pytest.fixture
def few_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not as many as there are images."""
    monkeypatch.setattr("rela.training.maps._FITTED_IMAGES", 5)


def least_digests(name: str) -> list[str]:
    """Of the images that a projection is fitted to."""
    with open(f"workspace/datasets/{name}/train.csv") as file:
        return sorted({row["stored_sha256"] for row in csv.DictReader(file)})[:5]


@pytest.mark.parametrize("change", ["gained", "renamed and reordered", "shares some"])
def test_maps_are_taken_if_their_projection_stays(
    rela: Rela, counts: list[int], few_fitted: None, change: str
):
    images, num_new, says = CHANGES[change]
    convert(rela, "workspace", "before", BEFORE)
    rela("embed", "before", *EMBED, *MAPS)
    convert(rela, "workspace", "after", images)
    counts.clear()
    said = rela("embed", "after", *EMBED, *MAPS).output
    name = artifact("workspace", "before", maps=True).name
    assert says.format(artifact("workspace", "before").name) in said
    stays = least_digests("before") == least_digests("after")
    assert stays == (change != "shares some"), "of these images"
    if stays:
        assert says.format(name) in said
        assert counts == [4] * -(-num_new // 4)
    else:
        assert f"not reused: {name}, computed with a projection fitted to other images" in said
        assert counts == [4] * (5 + 2)  # all images, and those that it is fitted to
    convert(rela, "fresh", "after", images)
    rela("--workspace", "fresh", "embed", "after", *EMBED, *MAPS)
    for maps in (False, True):
        assert content("workspace", "after", maps) == content("fresh", "after", maps)


def test_maps_and_vectors_take_one_pass_and_have_the_bytes_of_two(
    rela: Rela, counts: list[int], few_fitted: None
):
    convert(rela, "workspace", "before", BEFORE)
    rela("embed", "before", *EMBED, *MAPS)
    assert counts == [4] * (5 + 2)
    convert(rela, "fresh", "before", BEFORE)
    rela("--workspace", "fresh", "embed", "before", *EMBED, "--image-size", 64)
    counts.clear()
    rela("--workspace", "fresh", "embed", "before", *EMBED, *MAPS)
    assert counts == [4] * (5 + 2)
    for maps in (False, True):
        assert content("workspace", "before", maps) == content("fresh", "before", maps)


def test_with_crops_rows_belong_to_their_place(rela: Rela, counts: list[int], few_fitted: None):
    images, options = {**BEFORE, "30": 50}, (*EMBED, *MAPS, "--crops", 2)
    convert(rela, "workspace", "before", BEFORE)
    rela("embed", "before", *options)
    convert(rela, "workspace", "after", images)
    counts.clear()
    said = rela("embed", "after", *options).output
    assert counts == [4]
    convert(rela, "fresh", "after", images)
    rela("--workspace", "fresh", "embed", "after", *options)
    for maps in (False, True):
        name = artifact("workspace", "before", maps).name
        assert f"reused 36 of 38 rows from {name}; 1 image is embedded" in said
        assert content("workspace", "after", maps) == content("fresh", "after", maps)


@pytest.mark.parametrize("removed", ["the projection", "all"])
def test_a_faster_process_may_remove_the_parts_at_any_time(
    rela: Rela, counts: list[int], few_fitted: None, monkeypatch: pytest.MonkeyPatch, removed: str
):
    for workspace in ("workspace", "other"):
        convert(rela, workspace, "before", BEFORE)
    rela("--workspace", "other", "embed", "before", *EMBED, *MAPS)
    made = artifact("other", "before", maps=True)
    rows_of = embed.Rows

    def is_faster(forward: Any, *given: Any) -> Any:
        if not forward.filled[0].kind.grid:
            return rows_of(forward, *given)
        shutil.copytree(made, Path("workspace/representations") / made.name, dirs_exist_ok=True)
        parts = forward.filled[0].store.directory
        if removed == "all":
            shutil.rmtree(parts)
        else:
            (parts / "part-000000").touch()
        return rows_of(forward, *given)

    monkeypatch.setattr(embed, "Rows", is_faster)
    said = rela("embed", "before", *EMBED, *MAPS).output
    assert made.name in said
    assert content("workspace", "before", maps=True) == content("other", "before", maps=True)


def test_two_processes_share_the_parts_of_maps(
    rela: Rela, counts: list[int], few_fitted: None, monkeypatch: pytest.MonkeyPatch
):
    convert(rela, "fresh", "before", BEFORE)
    rela("--workspace", "fresh", "embed", "before", *EMBED, *MAPS)
    expected = artifact("fresh", "before", maps=True)
    key = read_json(expected / "manifest.json")["fingerprint"]
    with h5py.File(expected / "representations.h5") as file:
        theirs = file["representations"][4:8].tobytes()
    convert(rela, "workspace", "before", BEFORE)
    rela("embed", "before", *EMBED, "--image-size", 64)
    store = PartStore(Path("workspace/representations") / f".parts-{key[:32]}", 5)
    store.directory.mkdir()
    with Leases(store.directory) as others:
        assert list(store.claim([1], others)) == [1]
        monkeypatch.setattr(
            parts.time, "sleep", lambda _seconds: store.write(1, theirs, leases=others)
        )
        counts.clear()
        said = rela("embed", "before", *EMBED, *MAPS).output
    assert "waiting for 1 parts" in said and counts == [4] * (4 + 2)
    assert content("workspace", "before", maps=True) == content("fresh", "before", maps=True)
