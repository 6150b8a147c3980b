"""A night from the browser: every click is a person's, on Debian's Chromium, against what `overnight up` started."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from overnight.lockfile import Header
from overnight.rehearsal.site import Call, fingerprint
from tests.flows.world import COUNT, COUNTER, GREETING, KEYS, NOVEL, World
from tests.pages.browser import Browser
from tests.pages.conftest import WAIT_S, Up

pytestmark = pytest.mark.full
ROUTE, WRONG_ROUTE = ("claude-code / rehearsal / rehearsal-large", "claude-code / rehearsal-incident / rehearsal-large")
ENDED = ("Completed", "Failed", "Crashed", "Cancelled")
README_PICTURE = Path(__file__).with_name("from-the-browser.png")
MOST_BYTES = 150_000


def form(browser: Browser, here: World, instruction: str, route: str = ROUTE, **more: str) -> None:
    """Open the run form of `single` and fill in what it cannot do without."""
    browser.new_run("single")
    browser.fill({"repo": str(here.repo), "instruction": instruction, **more})
    browser.choose("host", "box")
    browser.choose("route", route)


def report_of(up: Up, name: str) -> dict[str, Any]:
    """The report of the only batch of that name."""
    (path,) = up.state.glob(f"batches/{name}-2*/report.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.2)


def chats(here: World, since: datetime) -> list[Call]:
    """What agents asked the provider while they worked."""
    return [call for call in list(here.provider.calls) if call.at >= since and call.tools and not call.is_probe]


@pytest.fixture(scope="module")
def counted(here: World, up: Up, browser: Browser, key: str) -> tuple[str, datetime]:
    """A run of `single`, from its filled form to its end; and when it began."""
    began = datetime.now(UTC)
    asked = f"{COUNT}.\nLet it print 0, 1 and 2."
    form(browser, here, asked, verify="python3 count.py", name="counter", repo="/srv/git/app.git")
    browser.page.get_by_label("Run Name").fill("counter")
    browser.to_the_top()
    picture = browser.shot("single-form")
    if not README_PICTURE.exists():  # delete it to have it made anew
        shutil.copy(picture, README_PICTURE)
    browser.fill({"repo": str(here.repo)})
    run_id = browser.submit()
    assert up.becomes(run_id, *ENDED)["name"] == "Completed"
    return run_id, began


def test_a_key_saved_on_the_pages_is_listed_and_never_shown(up: Up, browser: Browser, key: str) -> None:
    listed = up.overnight("credentials", "list")
    assert listed.code == 0, listed.err
    assert "rehearsal" in listed.out
    assert key not in listed.out + listed.err + browser.page.content()


def test_a_filled_form_becomes_commits(here: World, up: Up, counted: tuple[str, datetime]) -> None:
    (run,) = report_of(up, "counter")["runs"]
    assert (run["state"], run["verify"]["exit_code"]) == ("succeeded", 0)
    assert here.git("show", f"{run['branch']}:count.py").decode() == COUNTER


def test_the_run_used_the_key_from_the_pages(here: World, counted: tuple[str, datetime]) -> None:
    used = {call.keys.get(Header.BEARER) for call in chats(here, counted[1])}
    assert used == {fingerprint(KEYS["rehearsal"])}


def test_the_pages_tell_what_came_of_it(up: Up, browser: Browser, counted: tuple[str, datetime]) -> None:
    run_id, _ = counted
    (run,) = report_of(up, "counter")["runs"]
    browser.flow_run(run_id, "Details")
    browser.sees("1 succeeded")
    browser.shot("run", whole=True)
    browser.flow_run(run_id, "Task Runs")
    browser.sees("counter #1 monitor")
    browser.shot("task-runs", whole=True)
    browser.artifact(run_id, "-runs")
    browser.sees("succeeded")
    browser.shot("runs-table", whole=True)
    browser.artifact(run_id, "-report")
    browser.sees(run["commits"][0]["sha"][:7])
    browser.shot("report", whole=True)


def test_an_incomplete_form_starts_nothing(up: Up, browser: Browser) -> None:
    before = len(up.flow_runs())
    browser.new_run("single")
    browser.press("Submit")
    browser.sees("'instruction' is a required property")
    browser.shot("refused-form", whole=True)
    assert len(up.flow_runs()) == before


def test_what_the_form_cannot_check_is_refused_in_the_words_of_the_command_line(
    here: World, up: Up, browser: Browser, key: str
) -> None:
    form(browser, here, GREETING, repo=str(here.directory / "nowhere"))
    run_id = browser.submit()
    refused = up.becomes(run_id, *ENDED)
    assert refused["name"] == "Failed"
    browser.flow_run(run_id, "Details")
    browser.sees(f"no folder {here.directory / 'nowhere'}")
    browser.shot("refused-run")


def test_the_cause_and_the_mend_stand_on_the_page(here: World, up: Up, browser: Browser) -> None:
    """The incident: the lock writes the key to the wrong variable."""
    saved = up.overnight("credentials", "add", "rehearsal-incident", "--from-stdin", stdin=KEYS["rehearsal"])
    assert saved.code == 0, saved.err
    form(browser, here, GREETING, WRONG_ROUTE, name="incident")
    run_id = browser.submit()
    up.becomes(run_id, *ENDED)
    browser.flow_run(run_id, "Details")
    browser.sees("provider rejects x-api-key, accepts the same key as Authorization: Bearer")
    browser.shot("incident", whole=True)
    browser.flow_run(run_id, "Task Runs")
    browser.sees("Skipped")
    browser.shot("incident-task-runs", whole=True)
    browser.task_run(run_id, "of rehearsal-incident")
    browser.sees("put {key} into ANTHROPIC_AUTH_TOKEN instead of ANTHROPIC_API_KEY")
    browser.shot("incident-preflight", whole=True)


def test_the_doctor_finds_the_variable_among_all_that_is_saved(up: Up, browser: Browser, key: str) -> None:
    saved = up.overnight("credentials", "add", "rehearsal-incident", "--from-stdin", stdin=KEYS["rehearsal"])
    assert saved.code == 0, saved.err
    browser.new_run("doctor")
    browser.shot("doctor-form", whole=True)
    run_id = browser.submit()
    up.becomes(run_id, *ENDED)
    browser.flow_run(run_id, "Task Runs")
    browser.sees("look at box")
    browser.shot("doctor-task-runs", whole=True)
    browser.artifact(run_id, "doctor-saved")
    browser.sees("wrong-header")
    browser.shot("doctor-table", whole=True)
    browser.page.get_by_role("link", name="Every call, and the evidence").click()
    browser.sees("doctor-saved-report")
    browser.artifact(run_id, "-report")
    browser.sees("works with Authorization: Bearer, from ANTHROPIC_AUTH_TOKEN")
    browser.shot("doctor-report", whole=True)


def test_cancel_ends_the_run_on_its_host_and_collects_what_it_committed(
    here: World, up: Up, browser: Browser, key: str
) -> None:
    began = datetime.now(UTC)
    form(browser, here, NOVEL, name="novel")
    run_id = browser.submit()
    until(lambda: any(call.turn == 3 for call in chats(here, began)))  # the first chapter is committed
    browser.flow_run(run_id, "Logs")
    browser.menu("Cancel")
    browser.ask("Cancel Flow Run", "/set_state")
    assert up.becomes(run_id, *ENDED)["name"] == "Cancelled"
    (run,) = report_of(up, "novel")["runs"]
    assert (run["state"], [commit["subject"] for commit in run["commits"]]) == ("cancelled", ["Chapter one"])
    assert here.git("log", "-1", "--format=%s", run["commits"][-1]["sha"]) == b"Chapter one\n"
    left = [p for p in psutil.process_iter(["environ"]) if run["run_id"] in (p.info["environ"] or {}).values()]
    assert left == []
    browser.artifact(run_id, "-runs")
    browser.sees("cancelled")
    browser.shot("cancelled", whole=True)


def test_a_paused_run_is_delivered_after_approval(here: World, up: Up, browser: Browser, key: str) -> None:
    form(browser, here, COUNT, name="careful")
    browser.switch("approve")
    run_id = browser.submit()
    assert up.becomes(run_id, "Paused", *ENDED)["name"] == "Paused"
    assert not here.git("branch", "--list", "overnight/careful-*/careful").strip()
    browser.flow_run(run_id, "Logs")
    browser.menu("Resume")
    browser.sees("count.py")
    browser.shot("approval")
    browser.ask("Resume", "/resume")
    assert up.becomes(run_id, *ENDED)["name"] == "Completed"
    (run,) = report_of(up, "careful")["runs"]
    assert here.git("show", f"{run['branch']}:count.py").decode() == COUNTER


def test_a_batch_typed_into_the_form_becomes_commits(here: World, up: Up, browser: Browser, key: str) -> None:
    browser.new_run("batch")
    browser.add_item("tasks")
    browser.fill({"Instruction": COUNT, "Repo": str(here.repo), "Id": "count", "name": "evening"})
    browser.choose("Host", "box")
    browser.choose("Route", ROUTE)
    browser.shot("batch-form", whole=True)
    assert up.becomes(browser.submit(), *ENDED)["name"] == "Completed"
    (run,) = report_of(up, "evening")["runs"]
    assert here.git("show", f"{run['branch']}:count.py").decode() == COUNTER


def test_the_picture_of_the_readme_is_small() -> None:
    assert README_PICTURE.read_bytes().startswith(b"\x89PNG")
    assert README_PICTURE.stat().st_size <= MOST_BYTES
