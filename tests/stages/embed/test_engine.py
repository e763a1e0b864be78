"""One engine for every part of a result; what the manifest says of it, and what the key does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import Rela, read_json

from rela.pipeline.parts import PartStore
from rela.representations import engines

EMBED = ("embed", "--prior", "random:timm:test_vit", "--image-size", 32)


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], list[float]]:
    """Engines are timed for any number of images, and are so much faster; 6 parts."""
    monkeypatch.setattr("rela.representations.matrix_file.ROWS_PER_PART", 4)
    monkeypatch.setattr("rela.stages.embed.engine._FEWEST_IMAGES", 1)

    def replace(speedup: float) -> list[float]:
        asked: list[float] = []
        monkeypatch.setattr(engines, "_speedup", lambda *given: asked.append(speedup) or speedup)
        return asked

    return replace


def manifest(workspace: str = "workspace") -> Any:
    [path] = Path(workspace).glob("representations/*/manifest.json")
    return read_json(path)


def matrix(workspace: str = "workspace") -> bytes:
    [path] = Path(workspace).glob("representations/*/representations.h5")
    return path.read_bytes()


def test_an_interrupted_embedding_goes_on_with_its_engine(
    rela: Rela,
    small_tree: Path,
    timed: Callable[[float], list[float]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write, written = PartStore.write, []

    def write_two_then_die(*given: Any) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(given)
        write(*given)

    rela("convert", small_tree)
    timed(3.0)
    with monkeypatch.context() as patch:
        patch.setattr(PartStore, "write", write_two_then_die)
        rela(*EMBED, exit_code=130)
    asked = timed(0.5)  # another time, eager PyTorch would be chosen
    assert "engine onednn, float32: 3 ×" in rela(*EMBED).output
    assert not asked
    engine = manifest()["provenance"]["engine"]
    assert (engine["name"], engine["precision"], engine["speedup"]) == ("onednn", "float32", 3.0)
    assert 0 <= engine["difference"] < 1e-5

    rela("--workspace", "whole", "convert", small_tree)
    rela("--workspace", "whole", *EMBED, "--engine", "onednn")
    assert matrix("whole") == matrix()
    assert manifest("whole")["fingerprint"] == manifest()["fingerprint"]


def test_parts_without_a_record_are_eager(
    rela: Rela, images: Path, timed: Callable[[float], list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of a version that had no engines; a damaged record is no record."""
    with monkeypatch.context() as patch:
        patch.setattr("rela.stages.embed.embed._seal", lambda *given: None)
        rela(*EMBED, "--engine", "eager")
    [record] = Path("workspace").rglob("engine.json")
    record.write_text("[]")
    record.with_name("part-000000").unlink()
    timed(3.0)
    said = rela(*EMBED, "--engine", "onednn").output
    assert "continues with engine eager, which computed the finished parts" in said
    assert "engine" not in manifest()["provenance"]


def test_few_images_are_embedded_without_trying(rela: Rela, images: Path) -> None:
    assert "engine" not in rela(*EMBED).output
    assert manifest()["provenance"]["engine"]["name"] == "eager"


def test_bf16_has_a_key_of_its_own(
    rela: Rela, images: Path, timed: Callable[[float], list[float]]
) -> None:
    rela(*EMBED)
    key = manifest()["fingerprint"]
    timed(1.5)
    said = rela(*EMBED, "--precision", "bf16").output
    assert "engine eager, bf16: 1.5 × as fast as eager float32, features differ by" in said
    keys = {
        read_json(path)["fingerprint"] for path in Path("workspace").glob("representations/*/m*")
    }
    assert len(keys) == 2 and key in keys
    timed(0.9)
    refused = rela("embed", "--prior", "random:timm:test_vit", "--precision", "bf16", exit_code=2)
    assert (
        "no engine is both faster and exact in bf16 here; leave --precision out" in refused.output
    )


def test_compiled_is_for_gpus(rela: Rela, images: Path) -> None:
    said = rela(*EMBED, "--engine", "compiled", "--device", "cpu", exit_code=2).output
    assert "--engine compiled is for GPUs; leave it out, or use --device cuda" in said
