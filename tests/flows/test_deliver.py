"""Delivery from a terminal: what could not be pushed is pushed later, and what is held waits for a word."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.private_server import private_server
from tests.flows.rounds import command
from tests.flows.small import Small, small
from tests.flows.world import ROOT, finished
from tests.overnight.forges import TOKEN, forge
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
    way = {"how": "push", "remote": str(remote(here, "leak"))}
    tasks = [{"id": "leak", "instruction": agent(f"echo {key[:7]}{key[7:]} > .env"), "deliver": way}]
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


def test_a_forge_is_saved_from_a_terminal_listed_and_forgotten(here: Small) -> None:
    def forges(*args: str, said: str = "") -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-c", "from flows.cli import app; app()", "forges", *args, "--state", str(here.state)]
        return subprocess.run(argv, cwd=ROOT, env=here.env, input=said, capture_output=True, text=True, timeout=120)

    wrong = forges("add", "lab", "--api-url", "http://git.example/api/v4", "--from-stdin", said=TOKEN)
    assert (wrong.returncode, "is no https address" in wrong.stderr) == (2, True)
    saved = forges(
        "add", "lab", "--kind", "gitlab", "--api-url", "https://git.example/api/v4", "--from-stdin", said=TOKEN
    )
    assert saved.returncode == 0, saved.stderr
    listed = forges("list", "--json")
    assert "https://git.example/api/v4" in listed.stdout
    assert forges("remove", "lab").returncode == 0
    assert "no block forge-credentials/lab" in forges("remove", "lab").stderr
    assert TOKEN not in "".join(each.stdout + each.stderr for each in (wrong, saved, listed))


def test_what_a_delivery_needs_is_refused_before_anything_starts(here: Small) -> None:
    work = {"instruction": agent("echo x > x.txt")}
    done = here.run(here.batch("noremote", [{"id": "a", **work, "deliver": {"how": "push", "remote": "upstream"}}]))
    assert done.code == 2
    assert "tasks[0].deliver.remote" in done.err
    way = {"how": "pull_request", "forge": "nobody", "remote": f"file://{here.directory}/x.git"}
    done = here.run(here.batch("noforge", [{"id": "a", **work, "deliver": way}]))
    assert done.code == 2
    assert "tasks[0].deliver.forge: no block forge-credentials/nobody is saved" in done.err
    assert not list(here.state.glob("batches/no*"))


def test_a_night_with_a_pull_request_from_its_block_to_its_page(here: Small) -> None:
    path = here.directory / "served" / "acme" / "app.git"
    path.mkdir(parents=True)
    git(path, "init", "-q", "--bare")
    git(path, "config", "http.receivepack", "true")
    with forge("github", here.directory / "served") as fake:
        add = ["forges", "add", "loop", "--api-url", fake.api_url, "--from-stdin", "--state", str(here.state)]
        argv = [sys.executable, "-c", "from flows.cli import app; app()", *add]
        subprocess.run(argv, cwd=ROOT, env=here.env, input=TOKEN, text=True, timeout=120, check=True)
        way = {"how": "pull_request", "forge": "loop", "remote": f"{fake.url}/acme/app.git"}
        done = here.run(here.batch("pr", [{"id": "one", "instruction": agent("echo x > one.txt"), "deliver": way}]))
        assert done.code == 0, done.out + done.err
        run = report(here, "pr")["runs"][0]
        assert run["handed"]["url"] == f"{fake.url}/acme/app/pull/1"
        assert run["handed"]["url"] in done.out + done.err
        assert [pull["base"] for pull in fake.pulls] == ["main"]
        assert command(here, "flows.deliver", report(here, "pr")["batch_id"]).code == 0
        assert len(fake.pulls) == 1
    batch = here.state / "batches"
    assert [p for p in batch.rglob("*") if p.is_file() and TOKEN.encode() in p.read_bytes()] == []
