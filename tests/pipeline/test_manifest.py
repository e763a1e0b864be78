"""Manifests: what was written reads back, and anything else is refused.

Covers: every parameter that JSON holds; a stranger can read it; any changed bit, other JSON, entries of
another type and names outside of the artifact are refused, in which words; what provenance says.
"""

import json
import os
import platform
import sys
import time
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest
from damages import damages
from hypothesis import given, settings
from hypothesis import strategies as st
from manifests import MANIFEST

from rela.pipeline.artifact import Artifact, open_artifact
from rela.pipeline.errors import CorruptArtifactError
from rela.pipeline.fingerprint import fingerprint
from rela.pipeline.manifest import MANIFEST_NAME, Manifest, provenance
from rela.pipeline.parts import PartStore
from rela.pipeline.processes import ProcessExit
from rela.pipeline.spent import Spent

OUTSIDE = ["/etc/passwd", "../a", "a/../../b", "a/..", "", ".", "a\0b"]


def test_a_manifest_reads_back(tmp_path):
    MANIFEST.write(tmp_path)
    assert Manifest.read(tmp_path) == MANIFEST


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)  # fmt: skip


@settings(deadline=None)
@given(st.dictionaries(st.text(), JSON_VALUES))
def test_every_parameter_that_json_holds_reads_back(tmp_path_factory, parameters):
    directory = tmp_path_factory.mktemp("manifest")
    manifest = replace(MANIFEST, parameters=parameters)
    manifest.write(directory)
    assert Manifest.read(directory) == manifest


def test_a_manifest_is_readable_json_for_a_stranger(tmp_path):
    MANIFEST.write(tmp_path)
    document = json.loads((tmp_path / "manifest.json").read_text())
    assert document["kind"] == "dataset" and document["parameters"] == MANIFEST.parameters
    text = json.dumps(document, indent=1, sort_keys=True)  # two manifests compare line by line
    assert (tmp_path / "manifest.json").read_text() == text


@pytest.mark.parametrize(
    ("thing", "name"),
    [
        (MANIFEST, "kind"),
        (Artifact(Path("a"), MANIFEST), "path"),
        (Spent(), "seconds"),
        (PartStore(Path("a"), 3), "num_parts"),
        (ProcessExit(0, False), "status"),
    ],
)
def test_what_was_found_cannot_be_changed(thing, name):
    with pytest.raises(FrozenInstanceError):
        setattr(thing, name, getattr(thing, name))


def test_a_bit_changed_or_an_end_cut_off_anywhere_in_a_manifest_is_detected(tmp_path):
    MANIFEST.write(tmp_path)
    path = tmp_path / MANIFEST_NAME
    for damaged in damages(path.read_bytes()):
        path.write_bytes(damaged)
        with pytest.raises(CorruptArtifactError, match=r"manifest\.json"):
            Manifest.read(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", '{"manifest_sha256": 1}', "[" * 100_000])
def test_other_json_is_not_a_manifest(tmp_path, text):
    (tmp_path / MANIFEST_NAME).write_text(text)
    with pytest.raises(CorruptArtifactError, match="remove it with `rela rm"):
        Manifest.read(tmp_path)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        *(({"file_sha256": {name: "ab"}}, "ValueError") for name in OUTSIDE),
        *(({name: 5}, "TypeError") for name in ("kind", "fingerprint", "parameters", "content")),
        ({"provenance": ["here"]}, "TypeError"),
        ({"inputs": {"train": 5}}, "TypeError"),
        ({"file_sha256": {"file.txt": None}}, "TypeError"),
        ({"inputs": "train"}, "AttributeError"),
    ],
)
def test_a_manifest_of_odd_entries_is_refused_though_its_digest_is_right(tmp_path, changed, reason):
    replace(MANIFEST, **changed).write(tmp_path)
    with pytest.raises(CorruptArtifactError) as caught:
        Manifest.read(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path / MANIFEST_NAME} is not a readable manifest ({reason}); "
        f"remove it with `rela rm {tmp_path} --force`; run the command that made it again"
    )


def test_a_manifest_that_was_changed_says_so_with_both_digests(tmp_path):
    MANIFEST.write(tmp_path)
    path = tmp_path / MANIFEST_NAME
    document = json.loads(path.read_text())
    path.write_text(path.read_text().replace('"seed": 3', '"seed": 4'))
    was = document.pop("manifest_sha256")
    document["parameters"]["seed"] = 4
    found = fingerprint(document)
    with pytest.raises(CorruptArtifactError) as caught:
        Manifest.read(tmp_path)
    assert str(caught.value) == (
        f"{path} was changed after it was written: digest {found[:12]}, expected {was[:12]}; "
        f"remove it with `rela rm {tmp_path} --force`; run the command that made it again"
    )


def test_a_pipe_is_no_manifest(tmp_path):
    os.mkfifo(tmp_path / MANIFEST_NAME)
    with pytest.raises(CorruptArtifactError, match="found a pipe, expected a regular file"):
        Manifest.read(tmp_path)


def test_a_missing_manifest_is_not_a_damaged_one(tmp_path):
    with pytest.raises(FileNotFoundError):
        Manifest.read(tmp_path)
    assert open_artifact(tmp_path) is None
    assert open_artifact(tmp_path / "nothing") is None


def test_provenance_says_where_and_with_what(monkeypatch):
    import numpy

    monkeypatch.setattr(time, "time", lambda: 1234.56789)
    found = provenance(Spent(1.23456, 2.34567))
    assert found["finished_unix_seconds"] == 1234.568
    assert found["host"] == platform.node() and found["pid"] == os.getpid()
    assert found["seconds"] == 1.2346 and found["cpu_seconds"] == 2.3457
    assert found["versions"]["numpy"] == numpy.__version__
    assert provenance()["seconds"] is provenance()["cpu_seconds"] is None
    assert found["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
