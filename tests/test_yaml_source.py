"""YAML as plain data with line numbers, and everything in YAML that is refused."""

from pathlib import Path
from typing import Any

import pytest

from pathoml.errors import ConfigError
from pathoml.yaml_source import read_scalar, read_yaml


def read(tmp_path: Path, text: str) -> Any:
    path = tmp_path / "a.yaml"
    path.write_text(text, encoding="utf-8")
    return read_yaml(path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        (".5", 0.5),
        ("-3", -3),
        ("true", True),
        ("null", None),
        ("NO", "NO"),
        ("yes", "yes"),
        ("off", "off"),
        ("'05'", "05"),
        ("'1.0'", "1.0"),
        ("E2", "E2"),
        ("2020-01-02", "2020-01-02"),
        ("12:30:45", "12:30:45"),
        ("größe", "größe"),
    ],
)
def test_scalars_read_as_yaml_1_2_says(tmp_path: Path, text: str, value: object) -> None:
    found = read(tmp_path, f"a: {text}\n").data["a"]
    assert found == value
    assert type(found) is type(value)


def test_a_small_exponent_is_a_float_and_not_text(tmp_path: Path) -> None:
    assert isinstance(read(tmp_path, "learning_rate: 1e-4").data["learning_rate"], float)


def test_every_key_and_item_knows_its_line(tmp_path: Path) -> None:
    source = read(tmp_path, "# comment\na:\n  b: 1\n  c:\n    - x\n    - {d: 2}\n")
    assert source.where(("a", "b")) == "a.yaml:3"
    assert source.where(("a", "c", 0)) == "a.yaml:5"
    assert source.where(("a", "c", 1, "d")) == "a.yaml:6"


def test_a_key_that_is_not_there_stands_at_its_nearest_ancestor(tmp_path: Path) -> None:
    source = read(tmp_path, "x: 1\na:\n  b: 1\n")
    assert source.where(("a", "missing", "deeper")) == "a.yaml:2"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x {b: 1}\nc: *x\n", r"a\.yaml:1: anchors and aliases .* are not allowed"),
        ("a: &x {b: 1}\nc: {<<: *x}\n", "anchors and aliases"),
        ("a: !secret word\n", r"a\.yaml:1: the tag !secret is not allowed"),
        ("a: !!binary aGk=\n", "the tag tag:yaml.org,2002:binary is not allowed"),
        ("a: 1\nb: 2\na: 3\n", r"a\.yaml:3: key 'a' stands twice"),
        ("- 1\n- 2\n", "expected 'key: value' lines, found something else"),
        ("", "expected 'key: value' lines, found nothing"),
        ("a: [1, 2\n", r"a\.yaml:\d: not valid YAML"),
        ("a: 1\n---\nb: 2\n", "not valid YAML"),
        ("a: \tb: c", "not valid YAML"),
        ("a: " + "[" * 25 + "]" * 25, "nested deeper than 20 levels"),
    ],
)
def test_what_configurations_must_not_hold_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, text)


@pytest.mark.parametrize("text", ["a: !foo {b: 1}\n", "a: !!python/object/apply:os.system [ls]\n", "a: !!set {b}\n"])
def test_a_tag_on_a_list_or_mapping_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="not allowed"):
        read(tmp_path, text)


@pytest.mark.parametrize("value", ["!!int abc", "!!float abc", "9" * 5000])
def test_a_number_that_cannot_be_built_is_a_configuration_error(tmp_path: Path, value: str) -> None:
    with pytest.raises(ConfigError, match=r"a\.yaml:1"):
        read(tmp_path, f"a: {value}\n")


def test_thousands_of_brackets_are_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nested deeper"):
        read(tmp_path, "a: " + "[" * 3000 + "]" * 3000)


def test_every_refused_thing_is_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"3 problem\(s\)") as caught:
        read(tmp_path, "a: 1\na: 2\nb: !x y\nc: &k [1]\nd: *k\n")
    assert [problem.where for problem in caught.value.problems] == ["a.yaml:2", "a.yaml:3", "a.yaml:4"]


def test_an_alias_bomb_is_refused_without_being_built(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    with pytest.raises(ConfigError, match="anchors and aliases"):
        read(tmp_path, "\n".join(lines))


def test_a_file_above_1_mib_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="larger than 1 MiB"):
        read(tmp_path, "a: 1\n" + "#" * (1 << 20))


def test_text_that_is_not_utf8_is_refused_with_advice(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes("a: größe\n".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"not UTF-8 text.*save it as UTF-8"):
        read_yaml(tmp_path / "a.yaml")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.yaml: no such configuration file"):
        read_yaml(tmp_path / "gone.yaml")


@pytest.mark.parametrize(
    ("text", "value"), [("3", 3), ("true", True), ("1e-4", 1e-4), ("[1, 2]", [1, 2]), ("word", "word"), ("", None)]
)
def test_a_set_option_reads_its_value_as_a_file_would(text: str, value: object) -> None:
    assert read_scalar(text) == value


@pytest.mark.parametrize("text", ["[", "!!python/name:os.system x", "{a: 1, a: 2}", "[&x 1, *x]"])
def test_a_set_option_refuses_what_a_file_refuses(text: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        read_scalar(text)
