"""Delivery from a terminal: what could not be pushed is pushed later, and what is held waits for a word."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.private_server import private_server
from tests.flows.rounds import command
from tests.flows.small import Small, small
from tests.flows.world import finished
from tests.overnight.nights import git, script

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Small]:
    with small(tmp_path_factory.mktemp("world")) as made, private_server(made.state, os.environ):
        yield made


def agent(shell: str) -> str:
    return script(json.dumps({"sh": f"{shell} && git add -A && git commit -qm work"}))


def report(here: Small, name: str) -> dict[str, Any]:
    [path] = here.state.glob(f"batches/{name}-*/report.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def remote(here: Small, name: str) -> Path:
    path = here.directory / f"{name}.git"
    path.mkdir()
    git(path, "init", "-q", "--bare")
    return path


def test_what_could_not_be_pushed_is_named_and_pushed_later(here: Small) -> None:
    url = f"file://{here.directory}/later.git"
    tasks: list[dict[str, Any]] = [
        {"id": "one", "instruction": agent("echo x > one.txt"), "deliver": {"how": "push", "remote": url}},
        {"id": "two", "instruction": agent("echo x > two.txt"), "deliver": "branch"},
    ]
    done = here.run(here.batch("later", tasks))
    assert done.code == 1
    first = report(here, "later")
    batch_id = first["batch_id"]
    assert [run["state"] for run in first["runs"]] == ["succeeded", "succeeded"]
    assert [run["handed"] and run["handed"]["state"] for run in first["runs"]] == ["failed", None]
    assert f"push failed: overnight/{batch_id}/one at {url}" in done.out + done.err
    assert f"overnight deliver {batch_id} one" in done.out + done.err
    assert here.git("rev-parse", f"overnight/{batch_id}/one") == first["runs"][0]["commits"][-1]["sha"]

    path = remote(here, "later")
    again = command(here, "flows.deliver", batch_id)
    assert again.code == 0, again.out + again.err
    assert git(path, "rev-parse", f"overnight/{batch_id}/one") == first["runs"][0]["commits"][-1]["sha"]
    after = report(here, "later")
    assert (after["exit_code"], after["runs"][0]["handed"]["state"]) == (0, "delivered")
    assert command(here, "flows.deliver", batch_id, "one").code == 0
    refused = command(here, "flows.deliver", batch_id, "three")
    assert refused.code == 2
    assert "no task 'three'" in refused.err


def test_what_is_held_is_told_before_anybody_is_asked_and_waits_for_a_word(here: Small) -> None:
    path = remote(here, "held")
    way = {"how": "push", "remote": str(path), "branch": "{task}"}
    tasks = [
        {"id": "workflow", "instruction": agent("echo x > .gitlab-ci.yml"), "deliver": way},
        {"id": "plain", "instruction": agent("echo x > plain.txt"), "deliver": way},
    ]
    process = here.start(here.batch("held", tasks), "--on-interrupt", "cancel")
    page = here.found("batches/held-*/report.html")
    assert "guard workflows (hold)" in page.read_text()
    assert git(path, "for-each-ref", "--format=%(refname:short)", "refs/heads") == "plain"
    assert not page.with_name("report.json").exists()
    process.send_signal(signal.SIGINT)
    assert finished(process).code == 130
    batch_id = report(here, "held")["batch_id"]

    waiting = command(here, "flows.deliver", batch_id)
    assert waiting.code == 1
    assert "before your word" in waiting.out
    allowed = command(here, "flows.deliver", batch_id, "workflow", "--allow")
    assert allowed.code == 0, allowed.out + allowed.err
    tip = here.git("rev-parse", f"overnight/{batch_id}/workflow")
    assert git(path, "rev-parse", "workflow") == tip


def test_what_was_refused_stays_refused_and_says_how_it_is_made_by_hand(here: Small) -> None:
    key = here.env["OVERNIGHT_KEY_REHEARSAL"]
    tasks = [{"id": "leak", "instruction": agent(f"echo {key[:7]}{key[7:]} > .env"), "deliver": "push"}]
    done = here.run(here.batch("leak", tasks))
    assert done.code == 1
    assert "guard own_key (refuse)" in done.out + done.err
    assert key not in done.out + done.err
    batch_id = report(here, "leak")["batch_id"]
    again = command(here, "flows.deliver", batch_id, "--allow")
    assert again.code == 1
    assert here.git("branch", "--list", "overnight/*/leak") == ""
    by_hand = next(line.strip() for line in again.out.splitlines() if " branch overnight-leak " in line)
    here.git(*by_hand.split()[3:])
    assert here.git("rev-parse", "overnight-leak") == report(here, "leak")["runs"][0]["commits"][-1]["sha"]
