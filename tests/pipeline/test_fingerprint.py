"""Fingerprints: canonical JSON and digests.

Covers: the canonical text against values worked out by hand; that key order, a trip through JSON and
the kind of sequence do not change it while any other difference does; NaN, Infinity and what JSON
cannot hold are refused; file digests against `sha256sum`; digests of sequences.
"""

import hashlib
import json
import math
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rela.pipeline.fingerprint import canonical_json, file_sha256, fingerprint, ordered_digest

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12
)


def shuffled_keys(value):
    """The same value with the keys of every dictionary inserted the other way round."""
    if isinstance(value, dict):
        return {key: shuffled_keys(value[key]) for key in reversed(value)}
    if isinstance(value, list):
        return [shuffled_keys(item) for item in value]
    return value


def test_canonical_text_is_sorted_without_spaces_and_ascii():
    value = {"b": [1, 2.5, None], "a": {"z": True, "é": "x y"}}
    assert canonical_json(value) == b'{"a":{"z":true,"\\u00e9":"x y"},"b":[1,2.5,null]}'


def test_fingerprint_is_the_sha256_of_the_canonical_text():
    assert fingerprint({"a": 1}) == hashlib.sha256(b'{"a":1}').hexdigest()


@settings(deadline=None)
@given(VALUES)
def test_key_order_does_not_matter(value):
    assert canonical_json(shuffled_keys(value)) == canonical_json(value)


@settings(deadline=None)
@given(VALUES)
def test_a_trip_through_json_changes_nothing(value):
    assert canonical_json(json.loads(canonical_json(value))) == canonical_json(value)


@settings(deadline=None)
@given(st.dictionaries(st.integers(), st.none()))
def test_integer_keys_are_refused_or_survive_a_trip_through_json(value):
    try:
        text = canonical_json(value)
    except TypeError:
        return
    assert canonical_json(json.loads(text)) == text


@settings(deadline=None)
@given(VALUES, VALUES)
def test_equal_text_means_equal_value(one, other):
    assert json.loads(canonical_json(one)) == one
    if canonical_json(one) == canonical_json(other):
        assert one == other


@settings(deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_keeps_all_its_bits(value):
    found = json.loads(canonical_json([value]))[0]
    assert found == value and math.copysign(1, found) == math.copysign(1, value)


def test_numbers_of_different_kind_have_different_names():
    assert len({fingerprint(value) for value in (1, 1.0, True, "1", [1])}) == 5


def test_a_tuple_counts_as_a_list():
    assert canonical_json((1, (2, 3))) == canonical_json([1, [2, 3]])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_a_number_is_refused(value):
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"deep": [{"down": value}]})


@pytest.mark.parametrize("value", [{1, 2}, b"bytes", Path("/tmp"), object()])
def test_what_json_cannot_hold_is_refused(value):
    with pytest.raises(TypeError):
        fingerprint([value])


@pytest.mark.parametrize("num_bytes", [0, 1, 3_000_001])
def test_file_digest_is_that_of_sha256sum(tmp_path, num_bytes):
    path = tmp_path / "file"
    path.write_bytes(bytes(i % 251 for i in range(num_bytes)))
    tool = subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True)
    assert file_sha256(path) == tool.stdout.split()[0]


DIGESTS = st.lists(st.text("0123456789abcdef", min_size=64, max_size=64), unique=True, max_size=6)


@settings(deadline=None)
@given(DIGESTS)
def test_digest_of_a_sequence_is_the_sha256_of_its_lines(digests):
    text = "".join(f"{digest}\n" for digest in digests)
    assert ordered_digest(iter(digests)) == hashlib.sha256(text.encode()).hexdigest()


@settings(deadline=None)
@given(DIGESTS, st.randoms(use_true_random=False))
def test_digest_of_a_sequence_depends_on_order_and_length(digests, random):
    other = random.sample(digests, len(digests))
    assert (ordered_digest(other) == ordered_digest(digests)) == (other == digests)
    assert ordered_digest([*digests, "0" * 64]) != ordered_digest(digests)
