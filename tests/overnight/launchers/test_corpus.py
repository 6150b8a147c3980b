"""Small launchers, right and wrong: each says what must be found in it, and nothing else may be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from overnight.launchers.check import Checked, check
from overnight.launchers.locked import Locked, parse
from overnight.launchers.mend import mend
from overnight.lockplace import DEFAULT_LOCK

CORPUS = [
    case for file in sorted((Path(__file__).parent / "corpus").glob("*.yaml")) for case in YAML(typ="safe").load(file)
]
BAD = [case for case in CORPUS if case.get("found")]
GOOD = [case for case in CORPUS if not case.get("found")]


@pytest.fixture(scope="module")
def lock() -> Locked:
    return parse(DEFAULT_LOCK.read_text())


def written(case: dict[str, Any], folder: Path) -> None:
    for name, text in {case["path"]: case["text"], **case.get("beside", {})}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(text.encode())


def told(checked: Checked, path: str) -> list[str]:
    found = []
    for each in checked.findings:
        where = each.place.text.shown
        found.append(f"{'' if where == path else where + ' '}{each.place.line} {each.rule}")
    return sorted(found)


@pytest.mark.parametrize("case", CORPUS, ids=lambda case: case["name"])
def test_what_is_found(case: dict[str, Any], tmp_path: Path, lock: Locked) -> None:
    written(case, tmp_path)
    assert told(check([tmp_path], lock, tmp_path), case["path"]) == sorted(case.get("found", []))


@pytest.mark.parametrize("case", [case for case in BAD if "fixed" in case], ids=lambda case: case["name"])
def test_what_is_mended(case: dict[str, Any], tmp_path: Path, lock: Locked) -> None:
    written(case, tmp_path)
    mend(check([tmp_path], lock, tmp_path).findings)
    fixed = case["fixed"] if isinstance(case["fixed"], dict) else {case["path"]: case["fixed"]}
    assert {name: (tmp_path / name).read_bytes().decode() for name in fixed} == fixed
    assert not [each for each in check([tmp_path], lock, tmp_path).findings if each.certain]


def test_there_are_enough_of_both() -> None:
    assert len(BAD) >= 60
    assert len(GOOD) >= 60
