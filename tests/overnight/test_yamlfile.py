from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.failures import BadInput
from overnight.yamlfile import MAX_DEPTH, MAX_VALUES, parse, read_text

FILE = Path("night.yaml")


@pytest.mark.parametrize(
    ("text", "data"),
    [
        ("a: on", {"a": "on"}),
        ("a: no", {"a": "no"}),
        ("a: true", {"a": True}),
        ("a: 2026-13-45", {"a": "2026-13-45"}),
        ("a: 2026-11-22", {"a": "2026-11-22"}),
        ("a: 12:30", {"a": "12:30"}),
        ("a: &x {b: 1}\nc: {<<: *x, d: 2}", {"a": {"b": 1}, "c": {"b": 1, "d": 2}}),
        ("a: &x 1\nb: &x 2\nc: *x", {"a": 1, "b": 2, "c": 2}),
        ("a: |\n  x\r\n  y\n", {"a": "x\ny\n"}),
        ("# nothing", None),
        ("- 1", [1]),
    ],
)
def test_plain_data_comes_out(text: str, data: Any) -> None:
    assert parse(FILE, text) == data


@pytest.mark.parametrize(
    ("text", "field", "problem"),
    [
        ("a: 1\nb: [", "line 2, column 5", "expected"),
        ("a: 1\nb: 2\na: 3", "line 3, column 1", 'found duplicate key "a"'),
        ("a: {b: 1, b: 2}", "line 1, column 11", 'found duplicate key "b"'),
        ("a: 1\n---\nb: 2", "line 2, column 1", "found another document"),
        ("a:\n\t- b", "line 2, column 1", "cannot start any token"),
        ("a: *gone", "line 1, column 4", "undefined alias 'gone'"),
        ("a: !!python/object:os.system ls", "line 1, column 4", "could not determine a constructor"),
        ("a: !!binary eA==", "line 1, column 4", "could not determine a constructor"),
        ("a: !!int x", "file", "invalid literal for int"),
        ("a: !!bool maybe", "file", "maybe"),
        ("a: 1\nb: \x01", "line 2", "control character"),
        ('a: {b: ["x", "\\0"]}', "a.b[1]", "NUL"),
        ('a: "\\ud800"', "a", "surrogate"),
        ("a: {1: x}", "a", "the key 1 is no text"),
        ("true: x", "file", "the key True is no text"),
        ("a: &a [*a]", "file", "without end"),
        ("[" * 500, "file", "without end"),
        ("a: " + "[" * MAX_DEPTH + "]" * MAX_DEPTH, "file", "without end"),
    ],
)
def test_faults_are_refused_by_place(text: str, field: str, problem: str) -> None:
    with pytest.raises(BadInput) as refused:
        parse(FILE, text)
    assert (refused.value.where, refused.value.field) == ("night.yaml", field)
    assert problem in refused.value.problem


def test_a_duplicate_key_does_not_show_its_values() -> None:
    with pytest.raises(BadInput) as refused:
        parse(FILE, "key: first-value\nkey: second-value")
    assert "value" not in str(refused.value)


def test_aliases_cannot_grow_beyond_reason() -> None:
    levels = [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" for i in range(1, 9)]
    with pytest.raises(BadInput, match="grows beyond reason"):
        parse(FILE, "\n".join(["l0: &l0 [x]", *levels]))
    assert MAX_VALUES < 9**8


@given(st.text(alphabet=st.sampled_from("ab:-[]{}&*!|>'\"#%@\n\t ,?~<=1.0x\\u\0\ud800"), max_size=40) | st.text())
def test_any_text_is_data_or_bad_input(text: str) -> None:
    try:
        data = parse(FILE, text)
    except BadInput as refused:
        assert refused.where == "night.yaml"  # noqa: PT017  # either way is right
    else:
        json.dumps(data)


@pytest.mark.parametrize(
    ("content", "text"),
    [(b"a: 1\r\nb: 2\r\n", "a: 1\nb: 2\n"), (b"\xef\xbb\xbfa: 1", "a: 1"), ("ä".encode(), "ä")],
    ids=["windows line ends", "byte order mark", "utf-8"],
)
def test_text_is_read_as_written(tmp_path: Path, content: bytes, text: str) -> None:
    (tmp_path / "f").write_bytes(content)
    assert read_text(tmp_path / "f") == text


@pytest.mark.parametrize("content", ["ä".encode("latin-1"), "a: 1".encode("utf-16")], ids=["latin-1", "utf-16"])
def test_other_encodings_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(BadInput, match="is not UTF-8 text: byte 0 is 0x"):
        read_text(tmp_path / "f")


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none", tmp_path / ("x" * 5000)):
        with pytest.raises(BadInput) as refused:
            read_text(path)
        assert refused.value.where == str(path)
        assert refused.value.problem.startswith("cannot be read: ")
