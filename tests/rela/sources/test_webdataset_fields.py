"""Several images of one key in WebDataset shards: KEY.jpg beside KEY.seg.png.

Covers: the image is that without a further field, which is said with a count; the other one by its name;
labels are the same for both.
"""

import io
import tarfile
from pathlib import Path

import pytest
from opened import open_as, paths_and_labels
from pictures import png

from rela.errors import ChoiceError


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """4 keys with a label; the last has no segmentation, and one has a depth map, too."""
    path = tmp_path / "train-0.tar"
    with tarfile.open(path, "w") as tar:
        for i in range(4):
            contents = {"jpg": png(i, 8, 8), "cls": str(i % 2).encode(), "json": b'{"width": 8}'}
            contents |= {"seg.png": png(10 + i, 8, 8)} if i < 3 else {}
            contents |= {"depth.png": png(20, 8, 8)} if i == 0 else {}
            for field, content in contents.items():
                member = tarfile.TarInfo(f"{i:04}.{field}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return path


def test_the_plain_image_is_taken_and_the_others_are_counted(shard: Path):
    source = open_as("webdataset", shard)
    assert paths_and_labels(source) == [(f"train-0.tar/000{i}.jpg", i % 2) for i in range(4)]
    assert [s.read(source.root) for s in source.splits["train"]] == [png(i, 8, 8) for i in range(4)]
    (note,) = source.notes
    assert (
        "left out images of other fields: 3 seg.png, 1 depth.png" in note
        and "--image-field" in note
    )


@pytest.mark.parametrize("field", ["seg.png", "seg", ".SEG.png"])
def test_another_field_is_chosen(shard: Path, field: str):
    source = open_as("webdataset", shard, image_field=field)
    assert paths_and_labels(source) == [(f"train-0.tar/000{i}.seg.png", i % 2) for i in range(3)]
    assert source.splits["train"][2].read(source.root) == png(12, 8, 8)
    assert "4 jpg, 1 depth.png" in source.notes[0]


def test_a_field_that_is_not_there_is_refused_with_those_that_are(shard: Path):
    with pytest.raises(
        ChoiceError, match=r"mask is no field of .*; found depth\.png, jpg, seg\.png"
    ):
        open_as("webdataset", shard, image_field="mask")
