"""What users can ask a rehearsal for."""

from __future__ import annotations

import pytest

from overnight.failures import BadInput, FailureKind
from overnight.rehearsal.faults import FaultKind, parse_fault
from overnight.rehearsal.troubles import FAULTS, NAMES, SILENT, Trouble, trouble


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_a_failure_and_leads_to_something(name: str) -> None:
    found = trouble(name)
    assert found.expected == FailureKind(name)
    assert found != Trouble(name)


@pytest.mark.parametrize(("name", "written"), FAULTS.items())
def test_every_fault_of_the_table_is_one_of_the_emulator(name: str, written: str) -> None:
    assert trouble(name).fault == parse_fault(written)


def test_a_fault_can_be_written_as_the_emulator_reads_it() -> None:
    found = trouble("rate-limited,times=2,retry_after_s=1")
    assert found.fault == parse_fault("rate-limited,times=2,retry_after_s=1")
    assert found.expected is None


def test_nothing_asked_is_no_trouble() -> None:
    assert trouble("") == Trouble()


@pytest.mark.parametrize(
    ("asked", "near"), [("wentquiet", "went-quiet"), ("rate-limit", "rate-limited"), ("stal", "stall")]
)
def test_an_unknown_one_names_the_near_ones(asked: str, near: str) -> None:
    with pytest.raises(BadInput) as raised:
        trouble(asked)
    assert near in raised.value.mend


def test_settings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(BadInput, match="unknown setting"):
        trouble("rate-limited,time=2")


@pytest.mark.parametrize("kind", FaultKind)
def test_silent_is_what_sends_no_end_and_no_error(kind: FaultKind) -> None:
    assert (kind in SILENT) == (kind in ("hang", "headers-only", "stall", "drip"))
