"""The matrix: its catalogue, its arithmetic, its page, and a small one for real."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from overnight import lockfile
from overnight.failures import Evidence, Failure, FailureKind, fail
from overnight.harnesses import HARNESSES
from overnight.lockfile import Timing
from overnight.rehearsal.agents import Agent
from overnight.rehearsal.matrix import __main__ as matrix
from overnight.rehearsal.matrix import altered
from overnight.rehearsal.matrix.case import Case, Change, Way, any_of
from overnight.rehearsal.matrix.cell import Cell
from overnight.rehearsal.matrix.page import page
from overnight.rehearsal.matrix.verdict import Result, score, shown, totals

_K = FailureKind
NAMES = [case.name for case in matrix.CASES]

# what the matrix promises to hold, each by the name of its case
PROMISED = [
    "right",
    "slow",
    "bearer-only",
    "x-api-key-only",
    "401-anthropic",
    "401-zhipu-1000",
    "401-zhipu-1001",
    "401-zhipu-1002",
    "401-moonshot",
    "401-minimax",
    "403-key",
    "403-region",
    "403-html",
    "404-model",
    "wrong-path",
    "400-model",
    "400-credit",
    "402",
    "413",
    "429",
    "429-after-2",
    "429-after-3600",
    "429-1113",
    "429-1302",
    "429-1303",
    "429-1308",
    "429-1309",
    "500",
    "502-html",
    "503",
    "529",
    "200-error",
    "200-html",
    "200-empty",
    "200-truncated",
    "sse-error",
    "sse-empty",
    "sse-no-stop",
    "sse-cut",
    "sse-stall",
    "drip",
    "hang",
    "headers-only",
    "refused",
    "dns",
    "tls-self-signed",
    "tls-to-plain",
    "tls-expired",
    "proxy-dead",
    "401-turn-2",
    "429-turn-2",
    "stall-turn-2",
    "flaky-429",
    "flaky-500",
    "mapped",
    "empty-answer",
    "no-permission",
    "no-identity",
    "no-git",
    "hook-hangs",
    "mcp-hangs",
    "corrupt-config",
    "read-only-home",
    "disk-full",
    "oom",
    "killed",
    "stdin-waiter",
    "lock-waiter",
    "sleeper",
    "busy",
    "fork-bomb",
    "gigabyte",
    "bad-utf-8",
    "forgets",
    "another-branch",
    "rewrites",
    "claims",
    "loops",
]


def result(score: str = "right", **more: Any) -> Result:
    fields: dict[str, Any] = {"case": "429", "says": "429", "harness": "codex", "truth": ("rate-limited",)}
    return Result(**{**fields, "score": score, "verdict": "rate-limited", **more})


def test_every_promised_fault_is_there_and_no_name_twice() -> None:
    assert set(PROMISED) <= set(NAMES)
    assert len(NAMES) == len(set(NAMES))


@pytest.mark.parametrize("case", matrix.CASES, ids=lambda case: case.name)
def test_a_case_can_be_part_of_urls_and_fits_every_agent_it_names(case: Case) -> None:
    named = {*case.only, *case.changes, *case.instead}
    assert named <= set(matrix.AGENTS)
    for harness in case.only or matrix.AGENTS:
        assert Cell(case, harness).name.replace("-", "").isalnum()
        assert len(Cell(case, harness).name) < 60
        assert case.truth_for(harness) <= set(FailureKind) - {_K.UNKNOWN, _K.WENT_QUIET}


def test_no_cell_can_be_taken_for_another_by_its_instruction() -> None:
    cells = [Cell(case, harness) for case in matrix.CASES for harness in matrix.AGENTS]
    words = [cell.matched for cell in cells]
    assert not [(a, b) for a in words for b in words if a != b and a in b]


def test_every_agent_of_the_matrix_is_a_full_adapter_that_can_be_obtained() -> None:
    assert set(matrix.AGENTS) <= set(HARNESSES)
    wired = [lockfile.load().providers[altered.provider_of(name)].harnesses for name in matrix.AGENTS]
    assert all(name in harnesses for name, harnesses in zip(matrix.AGENTS, wired, strict=True))


@pytest.mark.parametrize(
    ("case", "kind", "expected"),
    [
        (Case("a", ""), None, "right"),
        (Case("a", ""), _K.RATE_LIMITED, "wrong"),
        (Case("a", ""), _K.WENT_QUIET, "wrong"),  # a false kill
        (Case("a", "", any_of(_K.BILLING)), None, "wrong"),
        (Case("a", "", any_of(_K.BILLING), spared=True), None, "right"),
        (Case("a", "", any_of(_K.BILLING)), _K.BILLING, "right"),
        (Case("a", "", any_of(_K.BILLING)), _K.RATE_LIMITED, "wrong"),
        (Case("a", "", any_of(_K.BILLING)), _K.UNKNOWN, "unknown"),
        (Case("a", "", any_of(_K.PROVIDER_MUTE)), _K.WENT_QUIET, "unknown"),
        (Case("a", "", any_of(_K.SILENT_START)), _K.SILENT_START, "right"),
        (Case("a", "", instead={"codex": any_of(_K.NETWORK)}), _K.NETWORK, "right"),
    ],
)
def test_scores(case: Case, kind: FailureKind | None, expected: str) -> None:
    assert score(case, "codex", Failure(kind=kind, evidence=(), remedy="") if kind else None) == expected


def test_what_must_be_shown_is_looked_for_in_the_evidence_alone() -> None:
    case = Case("a", "", any_of(_K.TOOL_STUCK), shown="flock|lock")
    bare = fail(_K.TOOL_STUCK, Evidence(source="host", seen="it waits"), remedy="take away the lock")
    assert shown(case, bare) is False
    assert shown(case, fail(_K.TOOL_STUCK, Evidence(source="host", seen="waits for a LOCK"))) is True
    assert shown(case, None) is None


def test_the_page_shows_what_agents_wrote_as_text() -> None:
    evil = "</li><script>alert(1)</script>&\"'"
    results = [result("wrong", says=evil, evidence=(evil,), verdict=evil, truth=(evil,), version=evil, harness=evil)]
    made = page(results, totals(results), datetime(2026, 11, 23, tzinfo=UTC))
    assert "<script" not in made
    assert made.count("&lt;script&gt;alert(1)&lt;/script&gt;&amp;&quot;&#x27;") == 6
    assert "http" not in made.replace("https", "http").split("<body>")[0]


def test_the_page_has_a_row_a_fault_and_a_column_an_agent() -> None:
    results = [result(case=case, harness=name) for case in ("429", "hang") for name in ("codex", "pi")]
    made = page(results[:-1], totals(results), datetime(2026, 11, 23, tzinfo=UTC))
    assert made.count("<tr>") == 3
    assert made.count('<td class="right">') == 3
    assert made.count("<td></td>") == 1


def test_a_case_changes_the_entry_of_its_own_cells_alone() -> None:
    change = Change(flags=("--more",), without=("--allowedTools",), swaps=(("1", "0"),), files={".x": "y"})
    changed = Cell(Case("odd", "", changes={"claude-code": change}), "claude-code")
    plain = Cell(Case("even", ""), "claude-code")
    cells = [changed, plain]
    lock = json.loads(altered.lock_text(cells, {cell.name: "http://127.0.0.1:1" for cell in cells}, "http://p"))
    own, usual = lock["harnesses"]["odd-claude-code"], lock["harnesses"]["claude-code"]
    assert own["flags"][-1] == "--more"
    assert not [flag for flag in own["flags"] if flag.startswith("--allowedTools")]
    assert [flag for flag in usual["flags"] if flag.startswith("--allowedTools")]
    assert set(lock["providers"]) == {"odd-claude-code", "even-claude-code"}
    files = altered.harnesses(cells)["odd-claude-code"].home_files
    assert altered.harnesses(cells)["claude-code"] is HARNESSES["claude-code"]
    assert callable(files)


def test_a_dead_proxy_is_in_the_environment_of_its_own_cells_alone() -> None:
    cells = [Cell(Case("dead", "", way=Way.DEAD_PROXY), "pi"), Cell(Case("live", ""), "pi")]
    lock = json.loads(altered.lock_text(cells, {cell.name: "http://127.0.0.1:1" for cell in cells}, "http://p"))
    assert lock["harnesses"]["dead-pi"]["env"]["https_proxy"] == "http://p"
    assert "https_proxy" not in lock["harnesses"]["pi"]["env"]


def test_limits_always_leave_room_for_the_agents_own_waits() -> None:
    for entry in lockfile.load().harnesses.values():
        waits = altered.hastened(entry.timing)
        found = altered.limits(Case("a", ""), waits)
        assert found.quiet_s is not None
        assert (waits.longest_s if waits else 0) < found.quiet_s < found.total_s
    usual = altered.limits(Case("a", "", own_waits=True), Timing(request_timeout_s=9, retries=0, backoff_s=0))
    assert usual.quiet_s == 420


@pytest.mark.parametrize(("option", "value"), [("--harness", "claud"), ("--fault", "no-such-*")])
def test_a_name_that_fits_nothing_is_refused(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert matrix.main([option, value], {}) == 2
    assert value in capsys.readouterr().err


def test_the_list_says_what_is_right(capsys: pytest.CaptureFixture[str]) -> None:
    assert matrix.main(["--list", "--fault", "flaky-*", "--harness", "pi"], {}) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert "rate-limited (or succeeded)" in lines[1]


@pytest.mark.full
def test_a_small_matrix_for_real(
    real_agent: Callable[[str], Agent], tmp_path: Path, environ: Mapping[str, str]
) -> None:
    agents = real_agent("claude-code").path.parent
    out, web = tmp_path / "m.json", tmp_path / "m.html"
    faults = [f"--fault={name}" for name in ("right", "401-anthropic", "forgets")]
    options = [f"--json={out}", f"--html={web}", f"--agents={agents}", f"--directory={tmp_path / 'runs'}"]
    assert matrix.main(["--harness=claude-code", *faults, *options], environ) in (0, 1)
    cells = {cell["case"]: cell for cell in json.loads(out.read_text())["cells"]}
    verdicts = {name: cell["verdict"] for name, cell in cells.items()}
    assert verdicts == {"right": "succeeded", "401-anthropic": "auth-rejected", "forgets": "no-commit"}
    assert {cell["score"] for cell in cells.values()} == {"right"}
    assert "auth-rejected" in web.read_text()
    assert not list((tmp_path / "runs").glob("*/hosts"))


@pytest.fixture
def environ() -> Mapping[str, str]:
    return {"PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"}
