"""Every row of the table decides a case of its own, and none is hidden by another."""

from __future__ import annotations

import pytest

from overnight.doctor.disagreement import TABLE, Answers, Layer, Row, Said, layer, said
from overnight.failures import FailureKind

OK, AUTH, MODEL, URL = Said.OK, Said.AUTH, Said.MODEL, Said.URL

CASES: tuple[tuple[Answers, Layer], ...] = (
    (Answers(OK, None, OK), Layer.NONE),
    (Answers(Said.NETWORK, None, OK), Layer.HERE),
    (Answers(AUTH, None, OK), Layer.ANOTHER_KEY),
    (Answers(Said.BUSY, None, OK), Layer.NONE),
    (Answers(OK, None, Said.HOST), Layer.HOST),
    (Answers(AUTH, AUTH, AUTH, other_header=True), Layer.HEADER),
    (Answers(Said.ACCOUNT, Said.ACCOUNT, Said.BUSY), Layer.ACCOUNT),
    (Answers(Said.NETWORK, Said.ACCOUNT, Said.ACCOUNT), Layer.ACCOUNT),
    (Answers(AUTH, AUTH, AUTH, free=True), Layer.HEADER),
    (Answers(OK, AUTH, AUTH), Layer.ON_THE_WAY),
    (Answers(OK, Said.NETWORK, Said.NETWORK), Layer.HOST_NETWORK),
    (Answers(AUTH, AUTH, AUTH), Layer.KEY),
    (Answers(AUTH, AUTH, Said.SILENT), Layer.KEY),
    (Answers(URL, URL, URL), Layer.URL),
    (Answers(MODEL, MODEL, MODEL), Layer.MODEL),
    (Answers(Said.BUSY, Said.BUSY, Said.BUSY), Layer.PROVIDER),
    (Answers(Said.MUTE, Said.MUTE, Said.MUTE), Layer.PROVIDER),
    (Answers(Said.NETWORK, Said.NETWORK, Said.NETWORK), Layer.NETWORK),
    (Answers(OK, OK, AUTH), Layer.WIRING),
    (Answers(OK, OK, MODEL), Layer.WIRING),
    (Answers(OK, OK, Said.SWAPPED), Layer.WIRING),
    (Answers(OK, OK, Said.NETWORK), Layer.AGENT_NETWORK),
    (Answers(OK, OK, Said.SILENT), Layer.AGENT),
    (Answers(OK, OK, Said.BUSY), Layer.PROVIDER),
    (Answers(Said.REFUSED, Said.REFUSED, Said.AGENT), Layer.AGENT),
    (Answers(Said.REFUSED, Said.REFUSED, Said.REFUSED), Layer.REQUEST),
    (Answers(Said.SWAPPED, OK, Said.SWAPPED), Layer.MODEL),
)


def deciding(answers: Answers) -> Row:
    return next(row for row in TABLE if row.fits(answers))


@pytest.mark.parametrize(("answers", "at_fault"), CASES, ids=lambda value: str(value))
def test_answers_name_a_layer(answers: Answers, at_fault: Layer) -> None:
    assert layer(answers)[0] is at_fault


def test_every_row_decides_one_of_the_cases() -> None:
    assert {id(deciding(answers)) for answers, _ in CASES} == {id(row) for row in TABLE}


def test_a_machine_cut_off_here_does_not_hide_what_the_host_heard() -> None:
    assert layer(Answers(Said.NETWORK, OK, AUTH))[0] is Layer.WIRING
    assert layer(Answers(Said.MUTE, OK, Said.SILENT))[0] is Layer.AGENT


def test_no_row_fits_and_the_answers_are_told() -> None:
    found, words = layer(Answers(Said.OTHER, None, MODEL))
    assert found is Layer.UNKNOWN
    assert words == "direct from here other, by the agent model"


def test_every_failure_kind_comes_to_an_answer() -> None:
    assert said(None) is OK
    assert said(FailureKind.MODEL_UNKNOWN, 404) is URL
    assert said(FailureKind.MODEL_UNKNOWN, 400) is MODEL
    assert said(FailureKind.CANCELLED) is Said.OTHER
