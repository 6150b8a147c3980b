from __future__ import annotations

from typing import Any

import pytest

from overnight.doctor.memory import remembered
from overnight.doctor.records import Checkup, Diagnosis, Finding, HostLook
from overnight.doctor.words import details, markdown
from overnight.failures import FailureKind
from overnight.history import told
from overnight.report import RouteReport
from tests.overnight.samples import ROUTE, proven
from tests.overnight.test_history import failed, night

K = FailureKind


def route(kind: FailureKind | None = None, **changes: Any) -> RouteReport:
    failure = proven(kind) if kind else None
    fields = {**ROUTE.model_dump(), "state": "shut" if kind else "open", "preflight_s": 1.0, "failure": failure}
    return RouteReport.model_validate({**fields, **changes})


def visit(*routes: RouteReport, findings: tuple[Finding, ...] = ()) -> Checkup:
    hosts = (HostLook(host="box", seconds=1.0, findings=findings),)
    return Checkup(hosts=hosts, diagnoses=tuple(Diagnosis(route=each) for each in routes))


def checked(checkup: Checkup, *kinds: FailureKind) -> list[tuple[str, bool]]:
    past = told([night(day, failed(kind)) for day, kind in enumerate(kinds)], 30)
    return [(check.kind, check.again) for check in remembered(checkup, past.signatures)]


def test_a_mended_cause_is_looked_for_by_name_and_one_that_is_back_comes_first() -> None:
    assert checked(visit(route()), K.AUTH_REJECTED) == [(K.AUTH_REJECTED, False)]
    found = checked(visit(route(K.AUTH_REJECTED)), K.AUTH_REJECTED, K.DISK_FULL)
    assert found == [(K.AUTH_REJECTED, True), (K.DISK_FULL, False)]


def test_what_a_look_at_the_host_found_counts_as_much_as_a_shut_route() -> None:
    full = Finding(id="disk-full", weight="error", seen="0 bytes free")
    assert checked(visit(route(), findings=(full,)), K.DISK_FULL) == [(K.DISK_FULL, True)]


@pytest.mark.parametrize(
    ("kind", "elsewhere"),
    [
        (K.DISK_FULL, {"host": "attic"}),
        (K.AUTH_REJECTED, {"provider": "deepseek"}),
        (K.HARNESS_CRASHED, {"harness": "goose"}),
    ],
)
def test_another_place_is_not_asked_after(kind: FailureKind, elsewhere: dict[str, str]) -> None:
    assert checked(visit(route(None, **elsewhere)), kind) == []


@pytest.mark.parametrize("kind", [K.NO_COMMIT, K.WENT_QUIET, K.CANCELLED, K.UNKNOWN])
def test_what_no_doctor_can_look_for_is_not_promised(kind: FailureKind) -> None:
    assert checked(visit(route()), kind) == []


def test_it_is_said_on_the_terminal_and_on_the_page() -> None:
    past = told([night(0, failed(K.AUTH_REJECTED, "HTTP 401"), failed(K.DISK_FULL, task_id="b"))], 30)
    checkup = visit(route(K.AUTH_REJECTED))
    said = checkup.model_copy(update={"remembered": remembered(checkup, past.signatures)})
    again = "THERE AGAIN: auth-rejected of zai with claude-code: HTTP 401  (1 task in 1 night, last 22 Nov)"
    assert f"  {again}" in details(said)
    assert "  not seen now: disk-full on box: seen  (1 task in 1 night, last 22 Nov)" in details(said)
    assert f"- {again}" in markdown("night", said)
    assert "remembered" not in "\n".join(details(checkup))
