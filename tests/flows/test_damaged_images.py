"""Damaged images and odd folders, beside the cases of `scripts/faults images` (test_fault_campaigns).

- a folder too deep to be read is named; odd names stay within the line of their message;
- PostScript, which Pillow has another program read, is refused; so is a size found out too late.
"""

import io
import os
import stat
import struct
from pathlib import Path

import numpy as np
import pytest
from command_line import run_rela
from PIL import Image

from benchmarks.faults.damaged_images import POSTSCRIPT, whole
from benchmarks.faults.images import write
from benchmarks.faults.odd_folders import FOLDERS
from rela.errors import DataError, UnavailableError
from rela.evaluation.voc import open_voc
from rela.sources.image_file import BadImageError
from rela.sources.image_folder import scan
from rela.sources.pixels import decode_image


def test_a_folder_too_deep_to_be_read_is_named(tmp_path: Path) -> None:
    FOLDERS["folders deeper than paths can be"](tmp_path)
    with pytest.raises(UnavailableError, match="ddd cannot be read: File name too long"):
        scan(tmp_path)


def test_messages_keep_odd_names_in_their_line(tmp_path: Path) -> None:
    write(tmp_path / "images", {"a/whole.png": whole(np.random.default_rng(0))[1]})
    (tmp_path / "images" / "a" / "line\nbreak\x1b[2J.png").write_bytes(b"")
    words = ("--workspace", tmp_path / "ws", "convert", tmp_path / "images", "--workers", 1)
    lines = run_rela(*words, exit_code=65).output.splitlines()
    assert r"  a/line\nbreak\x1b[2J.png: empty file (0 bytes)" in lines


def test_no_program_is_started_for_postscript(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import EpsImagePlugin

    program, trace = tmp_path / "gs", tmp_path / "started"
    program.write_text(f"#!/bin/sh\ntouch {trace}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    with pytest.raises(BadImageError, match="not an image"):
        decode_image(POSTSCRIPT)
    assert not trace.exists()
    with pytest.raises(OSError, match=r"Ghostscript|cannot"):  # what Pillow alone does
        Image.open(io.BytesIO(POSTSCRIPT)).load()
    assert trace.exists()


@pytest.mark.filterwarnings("ignore:Image was not the expected size")
def test_a_size_that_shows_in_decoding_alone_is_checked() -> None:
    file = io.BytesIO()
    Image.new("RGB", (70_000, 1)).save(file, "PNG")
    entry = struct.pack("<BBBBHHII", 0, 0, 0, 0, 1, 32, len(file.getvalue()), 22)
    with pytest.raises(BadImageError, match="at most 65535 a side"):
        decode_image(struct.pack("<HHH", 0, 1, 1) + entry + file.getvalue())


@pytest.mark.parametrize("name", ["../../other", "/etc/other"])
def test_lists_of_segmentation_name_nothing_outside(tmp_path: Path, name: str) -> None:
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text(name)
    with pytest.raises(DataError, match="outside of"):
        open_voc(tmp_path)
