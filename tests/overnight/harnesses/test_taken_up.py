"""A harness that a user adds with a file, and no Python."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from overnight.failures import BadInput
from overnight.harnesses import FOLDER_VARIABLE, HARNESSES, OURS, take_up
from overnight.lockfile import Header
from overnight.plan import Planner
from overnight.soundness import flaws
from tests.overnight.overlays import layered
from tests.overnight.samples import BATCH_ID, ROUTE, batch, task

MINE = r"""
name = "crush"
command = "crush"
argv = ["run", "--model={model}", "{flags}", "--", "{prompt}"]
output = "json"
verdict = "event"
usage = '^crush: usage'
[headers]
CRUSH_KEY = "bearer"
[version]
argv = ["--version"]
pattern = 'crush (\d+)'
[begins]
"no key" = "auth-rejected"
[[lines]]
act = "result"
when = {end = true}
read = {text = "said"}
ok = true
"""
ENTRY = {
    "crush": {
        "versions": {},
        "flags": ["--quiet"],
        "probe": {"total_s": 30, "timing": {"request_timeout_s": 5, "retries": 0, "backoff_s": 0}},
    }
}
WIRED = {"zai": {"harnesses": {"crush": {"endpoint": "anthropic", "set": {"CRUSH_KEY": "{key}"}}}}}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    before = dict(HARNESSES)
    (tmp_path / "crush.toml").write_text(MINE)
    yield tmp_path
    HARNESSES.clear()
    HARNESSES.update(before)


def test_no_folder_is_taken_up_that_nobody_names(folder: Path) -> None:
    take_up({"HOME": str(folder)})
    take_up({FOLDER_VARIABLE: ""})
    assert set(HARNESSES) == OURS


def test_a_file_and_a_part_of_the_lock_make_a_harness(folder: Path, tmp_path: Path) -> None:
    take_up({FOLDER_VARIABLE: str(folder)})
    take_up({FOLDER_VARIABLE: str(folder)})
    assert set(HARNESSES) == OURS | {"crush"}
    assert HARNESSES["crush"].HEADER_OF == {"CRUSH_KEY": Header.BEARER}
    lock = layered(tmp_path, harnesses=ENTRY, providers=WIRED).lock
    assert [flaw for flaw in flaws(lock) if "crush" in str(flaw)] == []
    route = ROUTE.model_copy(update={"harness": "crush"})
    spec = batch(task(route=route, instruction="Add --shout"))
    plan = Planner(lock, "lock", HARNESSES, spec, BATCH_ID).resolve(spec.tasks[0], 1, "a" * 40)
    *argv, prompt = plan.located("/opt/crush").argv
    assert argv == ["/opt/crush", "run", f"--model={ROUTE.model}", "--quiet", "--"]
    assert prompt.startswith("Add --shout")


@pytest.mark.parametrize(
    ("text", "field", "problem"),
    [
        (MINE.replace('"crush"', '"goose"', 1), "name", "is a harness already"),
        (MINE.replace('"{prompt}"', '"x"'), "argv", "no {prompt}"),
        (MINE.replace("auth-rejected", "auth"), "begins", "Input should be"),
        (MINE.replace('output = "json"', 'output = "xml"'), "output", "'json' or 'text'"),
        (MINE.replace("name =", "name"), "file", "is no TOML"),
        (MINE.replace("(\\d+)", "(\\d+"), "version.pattern", "regular expression"),
    ],
)
def test_what_a_file_gets_wrong_is_named(folder: Path, text: str, field: str, problem: str) -> None:
    (folder / "crush.toml").write_text(text)
    with pytest.raises(BadInput) as caught:
        take_up({FOLDER_VARIABLE: str(folder)})
    assert caught.value.where == str(folder / "crush.toml")
    assert caught.value.field.startswith(field)
    assert problem in caught.value.problem
    assert caught.value.mend
    assert set(HARNESSES) == OURS


def test_a_folder_that_is_none_and_a_name_given_twice(folder: Path) -> None:
    with pytest.raises(BadInput, match="is no folder"):
        take_up({FOLDER_VARIABLE: str(folder / "none")})
    (folder / "other.toml").write_text(MINE)
    with pytest.raises(BadInput, match="declared twice"):
        take_up({FOLDER_VARIABLE: str(folder)})


def test_a_declared_run_is_read_by_its_file(folder: Path) -> None:
    take_up({FOLDER_VARIABLE: str(folder)})
    (event,) = HARNESSES["crush"].reader().feed("out", json.dumps({"end": True, "said": "Done"}).encode() + b"\n")
    assert (event.ok, event.text) == (True, "Done")
