from __future__ import annotations

from pathlib import Path

import pytest

from overnight.failures import BadInput
from overnight.rehearsal import tapes
from overnight.rehearsal.model import Say, Shell, Tape, Wait, Write
from overnight.rehearsal.tapes import load_tapes


def test_the_example_in_the_docstring_loads(tmp_path: Path) -> None:
    file = tmp_path / "tapes.yaml"
    file.write_text((tapes.__doc__ or "").partition("\n\n")[2])
    assert load_tapes(file) == (
        Tape(
            "Add a greeting",
            (
                Write("greeting.txt", "hello\n"),
                Shell('git add -A && git commit -qm "Add a greeting"'),
                Wait(2),
                Say("Added and committed."),
            ),
        ),
    )


@pytest.mark.parametrize(
    ("text", "field", "problem"),
    [
        ("tapes: [{match: x, steps: [{shel: ls}]}]", "tapes.0.steps.0.shel", "not permitted"),
        ("tapes: [{match: x, steps: [{shell: ls, say: hi}]}]", "tapes.0.steps.0", "exactly one"),
        ("tapes: [{match: x, steps: [{}]}]", "tapes.0.steps.0", "exactly one"),
        ("tapes: [{match: x, steps: [{shell: null}]}]", "tapes.0.steps.0", "exactly one"),
        ("tapes: [{match: '', steps: []}]", "tapes.0.match", "at least 1"),
        ("tapes: [{match: x, steps: [{wait_s: -1}]}]", "tapes.0.steps.0.wait_s", "greater than or equal"),
        ("- a list", "file", "valid dictionary"),
        ("tapes: [", "line 1, column 9", "expected"),
        ("\x80", "line 1", "control character"),
        ("tapes: []\ntapes: []", "line 2, column 1", "duplicate key"),
    ],
)
def test_a_faulty_file_is_refused_by_field(tmp_path: Path, text: str, field: str, problem: str) -> None:
    file = tmp_path / "tapes.yaml"
    file.write_text(text)
    with pytest.raises(BadInput) as refused:
        load_tapes(file)
    assert refused.value.where == str(file)
    assert refused.value.field == field
    assert problem in refused.value.problem


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"absent\.yaml"):
        load_tapes(tmp_path / "absent.yaml")
