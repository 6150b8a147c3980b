from __future__ import annotations

import json

import pytest

from overnight.events import Act
from overnight.harnesses import copilot
from tests.overnight.harnesses.golden import case, read_all


def test_a_good_run_from_its_first_tool_to_its_verdict() -> None:
    events = [e for e in read_all("copilot", case("copilot", "ok-tooluse").out) if e.act is not Act.OTHER]
    assert (events[0].act, events[0].model) == (Act.INIT, "glm-5.1")
    assert [(e.tool, e.ok) for e in events if e.act is Act.TOOL_ENDED] == [("bash", True)] * 3
    assert (events[-1].act, events[-1].ok) == (Act.RESULT, True)
    assert events[-1].text == "Done: created hello.txt and committed it. "


def test_every_try_is_told_with_its_status_and_what_the_provider_said() -> None:
    events = read_all("copilot", case("copilot", "401-zhipu").out)
    tries = [e for e in events if e.act is Act.RETRYING]
    assert [(e.attempt, e.status) for e in tries] == [(1, 401), (2, 401), (3, 401)]
    assert all(json.loads(e.text)["error"]["code"] == "1001" for e in tries)


def test_its_last_error_keeps_what_the_provider_said() -> None:
    (error,) = [e for e in read_all("copilot", case("copilot", "401-zhipu").out) if e.act is Act.ERROR]
    assert (error.status, error.error) == (401, "authentication")
    assert json.loads(error.text)["error"]["code"] == "1001"


def test_an_error_inside_a_good_status_is_called_one() -> None:
    errors = [e for e in read_all("copilot", case("copilot", "200-errbody").out) if e.act is Act.ERROR]
    assert [e.error for e in errors] == ["error-in-200"]


def test_a_run_that_was_told_to_stop_has_no_verdict() -> None:
    assert b'"exitCode":0' in case("copilot", "hang").out
    assert not [e for e in read_all("copilot", case("copilot", "hang").out) if e.act is Act.RESULT]


@pytest.mark.parametrize(("success", "code", "ok"), [(True, 0, True), (True, 128, False), (False, 0, False)])
def test_a_command_that_failed_ended_badly(success: bool, code: int, ok: bool) -> None:
    data = {"toolCallId": "1", "success": success, "shellExecution": {"exitCode": code}}
    line = json.dumps({"type": "tool.execution_complete", "data": data}).encode()
    (event,) = read_all("copilot", line + b"\n")
    assert (event.act, event.ok) == (Act.TOOL_ENDED, ok)


def test_reads_the_version_it_prints() -> None:
    said = "GitHub Copilot CLI 1.0.102.\nRun 'copilot update' to check for updates.\n"
    assert copilot.read_version(said) == "1.0.102"
    assert copilot.read_version("GitHub Copilot CLI is not here") is None
