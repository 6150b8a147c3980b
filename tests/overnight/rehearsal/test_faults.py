from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from overnight.failures import BadInput
from overnight.rehearsal.faults import FAULT_HELP, Fault, FaultKind, parse_fault
from overnight.rehearsal.provider import EmulatedProvider
from tests.overnight.rehearsal.test_provider import CHAT, asking, events

F = FaultKind

RESET = datetime(2026, 11, 22, 18, 0, tzinfo=UTC)

# what the ZhiPu-shaped site answers: status, type of content, a piece of the body
ANSWERED: dict[FaultKind, tuple[int, str, str]] = {
    F.KEY_REFUSED: (401, "json", '{"code": "1000", "message": "身份验证失败。"}'),
    F.FORBIDDEN: (403, "json", '"permission_error"'),
    F.CONTENT_REFUSED: (400, "json", '"code": "1301"'),
    F.REGION_REFUSED: (403, "json", '{"error": {"type": "forbidden", "message": "Request not allowed"}}'),
    F.FIREWALL_PAGE: (403, "html", "<html>"),
    F.MODEL_NOT_FOUND: (404, "json", '"not_found_error", "message": "model: rehearsal-large"'),
    F.UNKNOWN_MODEL: (400, "json", '"code": "1211"'),
    F.TOO_LARGE: (413, "json", '"request_too_large"'),
    F.CODED: (429, "json", '"code": "1303"'),
    F.CREDIT_TOO_LOW: (400, "json", "Your credit balance is too low"),
    F.PAYMENT_REQUIRED: (402, "json", '"billing_error"'),
    F.RATE_LIMITED: (429, "json", '"code": "1302"'),
    F.NO_BALANCE: (429, "json", '"type": "rate_limit_error", "code": "1113"'),
    F.WINDOW_USED_UP: (
        429,
        "json",
        "[1308][Usage limit reached for 5 hour. Your limit will reset at 2026-11-22 18:00:00]",
    ),
    F.PLAN_EXPIRED: (429, "json", '"code": "1309"'),
    F.SERVER_ERROR: (500, "json", '"api_error"'),
    F.BAD_GATEWAY: (502, "html", "<html>"),
    F.UNAVAILABLE: (503, "json", '"api_error"'),
    F.OVERLOADED: (529, "json", '"overloaded_error"'),
    F.HTML_PAGE: (200, "html", "<html>"),
    F.ERROR_IN_OK: (200, "json", '{"code": 500, "msg": "404 NOT_FOUND", "success": false}'),
    F.EMPTY: (200, "json", ""),
}
SPOILED = {F.HANG, F.HEADERS_ONLY, F.STALL, F.CUT, F.STREAM_ERROR, F.DRIP}
IN_EACH_API = {F.TRUNCATED, F.EMPTY_STREAM, F.NO_STOP, F.EMPTY_ANSWER, F.SLOW}  # test_faults_on_the_wire


def test_every_fault_is_seen_by_a_test_here() -> None:
    assert set(ANSWERED) | SPOILED | IN_EACH_API == set(FaultKind)


def test_the_help_and_the_readme_name_every_fault() -> None:
    readme = Path(__file__).parents[3].joinpath("README.md").read_text()
    for kind in FaultKind:
        assert re.search(rf"\b{kind}[,;]", FAULT_HELP), kind
        assert f"`{kind}`" in readme, kind


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", ANSWERED)
def test_a_fault_that_answers(provider: EmulatedProvider, http: httpx.Client, kind: FaultKind, stream: bool) -> None:
    provider.set_fault("bearer", Fault(kind, resets_at=RESET, code="1303" if kind is F.CODED else None))
    answer = http.post(provider.url("bearer") + CHAT, json=asking(stream=stream))
    status, content, piece = ANSWERED[kind]
    assert answer.status_code == status
    assert content in answer.headers["content-type"]
    assert piece in answer.text
    assert bool(piece) == bool(answer.text)
    assert "retry-after" not in answer.headers
    assert provider.calls[-1].faulty
    assert provider.calls[-1].status == status


@pytest.mark.parametrize("kind", [F.RATE_LIMITED, F.OVERLOADED, F.NO_BALANCE])
def test_an_error_carries_retry_after_when_told(
    provider: EmulatedProvider, http: httpx.Client, kind: FaultKind
) -> None:
    provider.set_fault("bearer", Fault(kind, retry_after_s=3600))
    assert http.post(provider.url("bearer") + CHAT, json=asking()).headers["retry-after"] == "3600"


def test_the_anthropic_dialect_has_no_codes_of_its_own(provider: EmulatedProvider, bare: httpx.Client) -> None:
    headers = {"x-api-key": "fake-key-of-the-tests"}
    errors = {}
    for kind in (F.RATE_LIMITED, F.OVERLOADED, F.NO_BALANCE, F.ERROR_IN_OK):
        provider.set_fault("header", Fault(kind))
        answer = bare.post(provider.url("header") + CHAT, json=asking(), headers=headers)
        errors[kind] = answer.json()["error"]
    assert errors[F.RATE_LIMITED] == {"type": "rate_limit_error", "message": "Rate limit reached for requests"}
    assert errors[F.OVERLOADED] == {"type": "overloaded_error", "message": "Overloaded"}
    assert errors[F.NO_BALANCE]["code"] == "1113"
    assert errors[F.ERROR_IN_OK]["type"] == "api_error"


@pytest.mark.parametrize("stream", [False, True])
def test_a_hang_sends_no_head(provider: EmulatedProvider, http: httpx.Client, stream: bool) -> None:
    provider.set_fault("bearer", Fault(F.HANG))
    with (
        pytest.raises(httpx.ReadTimeout),
        http.stream("POST", provider.url("bearer") + CHAT, json=asking(stream=stream), timeout=0.3),
    ):
        pytest.fail("a head came")
    assert provider.calls[-1].status is None


def read_into(got: bytearray, answer: httpx.Response) -> None:
    for chunk in answer.iter_raw():
        got += chunk


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("kind", "bytes_come", "ending"),
    [
        (F.HEADERS_ONLY, False, httpx.ReadTimeout),
        (F.STALL, True, httpx.ReadTimeout),
        (F.CUT, True, httpx.RemoteProtocolError),
    ],
)
def test_an_answer_that_does_not_end_well(
    provider: EmulatedProvider,
    http: httpx.Client,
    kind: FaultKind,
    bytes_come: bool,
    ending: type[Exception],
    stream: bool,
) -> None:
    provider.set_fault("bearer", Fault(kind))
    got = bytearray()
    with http.stream("POST", provider.url("bearer") + CHAT, json=asking(stream=stream), timeout=0.3) as answer:
        assert answer.status_code == 200
        with pytest.raises(ending):
            read_into(got, answer)
    assert bool(got) == bytes_come
    assert b"message_stop" not in got
    if stream and bytes_come:
        assert b"text_delta" in got


def test_an_error_event_ends_a_stream_and_spares_a_body(provider: EmulatedProvider, http: httpx.Client) -> None:
    provider.set_fault("bearer", Fault(F.STREAM_ERROR))
    stream = events(http.post(provider.url("bearer") + CHAT, json=asking(stream=True)).text)
    assert [stream[0]["type"], stream[-1]["type"]] == ["message_start", "error"]
    assert http.post(provider.url("bearer") + CHAT, json=asking()).json()["type"] == "message"


def test_an_error_inside_200_is_the_one_that_is_told(provider: EmulatedProvider, http: httpx.Client) -> None:
    provider.set_fault("bearer", Fault(F.ERROR_IN_OK, says=F.WINDOW_USED_UP, resets_at=RESET))
    answer = http.post(provider.url("bearer") + CHAT, json=asking(stream=True))
    assert (answer.status_code, answer.json()["error"]["code"]) == (200, "1308")
    provider.set_fault("bearer", Fault(F.STREAM_ERROR, says=F.WINDOW_USED_UP, at_once=True))
    stream = events(http.post(provider.url("bearer") + CHAT, json=asking(stream=True)).text)
    assert [(event["type"], event["error"]["code"]) for event in stream] == [("error", "1308")]
    provider.set_fault("bearer", Fault(F.STREAM_ERROR))
    stream = events(http.post(provider.url("bearer") + CHAT, json=asking(stream=True)).text)
    assert stream[-1]["error"] == {"type": "overloaded_error", "message": "Overloaded"}


def test_a_drip_goes_on_and_never_ends(provider: EmulatedProvider, http: httpx.Client) -> None:
    provider.set_fault("bearer", Fault(F.DRIP, every_s=0.05))
    got = b""
    with http.stream("POST", provider.url("bearer") + CHAT, json=asking(stream=True), timeout=1) as answer:
        for chunk in answer.iter_raw():
            got += chunk
            if got.count(b"event: ping") >= 5:
                break
    assert b"text_delta" in got
    assert b"message_stop" not in got


def statuses(provider: EmulatedProvider, http: httpx.Client, count: int) -> list[int]:
    return [http.post(provider.url("bearer") + CHAT, json=asking()).status_code for _ in range(count)]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (Fault(F.OVERLOADED), [529, 529, 529, 529]),
        (Fault(F.OVERLOADED, times=2), [529, 529, 200, 200]),
        (Fault(F.OVERLOADED, after=1), [200, 529, 529, 529]),
        (Fault(F.OVERLOADED, after=1, times=2), [200, 529, 529, 200]),
    ],
)
def test_a_fault_counts_requests_from_when_it_was_set(
    provider: EmulatedProvider, http: httpx.Client, fault: Fault, expected: list[int]
) -> None:
    for _ in range(2):
        provider.set_fault("bearer", fault)
        assert statuses(provider, http, 4) == expected
    provider.set_fault("bearer", None)
    assert statuses(provider, http, 1) == [200]


def test_a_fault_of_a_later_turn_spares_every_first_turn(provider: EmulatedProvider, http: httpx.Client) -> None:
    provider.set_fault("bearer", Fault(F.KEY_REFUSED, turn=2, times=1))
    second: dict[str, Any] = asking()
    second["messages"] += [
        {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "Bash", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "ok"}]},
    ]
    assert statuses(provider, http, 3) == [200, 200, 200]
    assert http.post(provider.url("bearer") + CHAT, json=second).status_code == 401
    assert http.post(provider.url("bearer") + CHAT, json=second).status_code == 200


def test_a_wrong_key_is_refused_before_any_fault(provider: EmulatedProvider, http: httpx.Client) -> None:
    provider.set_fault("bearer", Fault(F.OVERLOADED, times=1))
    refused = http.post(provider.url("bearer") + CHAT, json=asking(), headers={"Authorization": "Bearer other"})
    assert refused.status_code == 401
    assert not provider.calls[-1].faulty
    assert statuses(provider, http, 2) == [529, 200]


def test_a_fault_hits_whatever_model_is_asked_for(provider: EmulatedProvider, http: httpx.Client) -> None:
    other = {**asking(), "model": "no-such-model"}
    provider.set_fault("bearer", Fault(F.OVERLOADED))
    assert http.post(provider.url("bearer") + CHAT, json=other).status_code == 529
    provider.set_fault("bearer", Fault(F.EMPTY_ANSWER))
    assert http.post(provider.url("bearer") + CHAT, json=other).json()["model"] == "no-such-model"
    provider.set_fault("bearer", None)
    assert http.post(provider.url("bearer") + CHAT, json=other).json()["error"]["code"] == "1211"


def test_a_fault_is_read_from_text() -> None:
    assert parse_fault("coded,code=1308,turn=2") == Fault(F.CODED, code="1308", turn=2)
    assert parse_fault("stream-error,code=1308") == Fault(F.STREAM_ERROR, code="1308")
    assert parse_fault("drip,drips=text") == Fault(F.DRIP, drips="text")
    assert parse_fault("slow,wait_s=60") == Fault(F.SLOW, wait_s=60)
    assert parse_fault("hang") == Fault(F.HANG)
    assert parse_fault("rate-limited,after=1,times=2,turn=3,retry_after_s=4") == Fault(F.RATE_LIMITED, 1, 2, 3, 4)
    assert parse_fault("window-used-up,resets_at=2026-11-22T18:00:00Z") == Fault(F.WINDOW_USED_UP, resets_at=RESET)
    assert parse_fault("drip,every_s=0.5").every_s == 0.5
    assert parse_fault("stream-error,says=no-balance,at_once=yes") == Fault(
        F.STREAM_ERROR, says=F.NO_BALANCE, at_once=True
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rate-limit", "Did you mean rate-limited"),
        ("", "unknown fault"),
        ("hang,time=2", "Did you mean times"),
        ("hang,kind=cut", "unknown setting"),
        ("hang,times=many", "valid integer"),
        ("error-in-ok,says=hang", "hang is no error in words"),
        ("error-in-ok,says=no-balanc", "Did you mean no-balance"),
        ("coded", "coded needs a code"),
        ("coded,code=1399", r"1399 is no code; known are 1000, 1001, .*Did you mean 13"),
        ("hang,code=1308", "a code is for coded, error-in-ok and stream-error"),
        ("stream-error,code=1308,says=no-balance", "without says"),
        ("drip,drips=word", "Known: ping, text"),
        ("slow", "slow needs wait_s"),
    ],
)
def test_a_fault_that_cannot_be_read_is_refused_by_name(text: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        parse_fault(text)
