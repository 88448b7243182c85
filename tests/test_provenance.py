"""Digests: the same for the same, another for anything else, for ever."""

import hashlib
import importlib.metadata
import math
import platform
import socket
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pathoml.provenance import array_digest, canonical_json, digest_of, environment, pathoml_version, settings_digest
from pathoml.tiling import TilingSettings
from pathoml.tissue import ClassicalTissueSettings

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


def reversed_keys(value: object) -> object:
    if isinstance(value, dict):
        return {key: reversed_keys(value[key]) for key in reversed(value)}
    return [reversed_keys(one) for one in value] if isinstance(value, list) else value


def test_the_canonical_spelling_is_written_down() -> None:
    """SHA-256 of the bytes below by sha256sum; a change would orphan every bag and run folder there is."""
    value = {"µ": 1e-07, "a": [1, 1.0, True, None], "Z": {"y": 0.1, "x": "é"}}
    spelling = '{"Z":{"x":"é","y":0.1},"a":[1,1.0,true,null],"µ":1e-07}'
    assert canonical_json(value) == spelling
    assert digest_of(value) == hashlib.sha256(spelling.encode("utf-8")).hexdigest()
    assert digest_of(value) == "4e26d30eaf3c7e497506ef013eafd06f28d7df36abe60ffd3d6f85ffca0c5e7e"


@settings(max_examples=25, deadline=None, derandomize=True)
@given(JSON)
def test_the_order_of_keys_does_not_matter(value: object) -> None:
    assert digest_of(value) == digest_of(reversed_keys(value))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_json_has_no_digest(value: float) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        digest_of([value])


def test_an_array_digest_is_that_of_its_head_and_bytes() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    expected = hashlib.sha256(b'["<f4",[2,3]]' + array.tobytes()).hexdigest()
    assert array_digest(array) == expected


def test_an_array_digest_depends_on_dtype_shape_and_values() -> None:
    array = np.arange(6, dtype=np.int32)
    others = [array.reshape(2, 3), array.reshape(3, 2), array.astype(np.uint32), array.astype(np.int64), array[::-1]]
    zeros = [
        np.zeros(4, np.float16),
        np.zeros(8, np.uint8),
        np.zeros(2, np.float32),
        np.zeros((0, 4)),
        np.zeros((4, 0)),
    ]
    digests = [array_digest(one) for one in [array, *others, *zeros]]
    assert len(set(digests)) == len(digests)


def test_an_array_digest_does_not_depend_on_layout_or_byte_order() -> None:
    array = np.random.default_rng(1).normal(size=(5, 7))
    same = [np.asfortranarray(array), array.astype(">f8"), np.repeat(array, 2, axis=0)[::2]]
    assert {array_digest(one) for one in same} == {array_digest(array)}


def test_settings_have_one_digest_however_they_were_spelt() -> None:
    assert settings_digest(ClassicalTissueSettings()) == settings_digest(ClassicalTissueSettings(mask_mpp=8))
    assert settings_digest(ClassicalTissueSettings()) != settings_digest(ClassicalTissueSettings(mask_mpp=8.5))
    assert settings_digest(ClassicalTissueSettings(), TilingSettings()) != settings_digest(
        TilingSettings(), ClassicalTissueSettings()
    )


def test_the_environment_names_versions_and_no_machine_or_person() -> None:
    found = environment()
    assert found["pathoml"] == pathoml_version() == importlib.metadata.version("pathoml")
    assert found["python"] == platform.python_version()
    assert found["openslide-bin"] == importlib.metadata.version("openslide-bin")
    for secret in (socket.gethostname(), Path.home().name, str(Path.home())):
        assert secret not in found.values()
