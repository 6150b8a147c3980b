import json
from typing import Any

import pytest

from overnight import lockfile
from overnight.failures import FailureKind
from overnight.lockfile import FreeProbe
from overnight.wire import Answer, Stream, classify, judge, read_body, read_free, read_message

LOCK = lockfile.load()
K = FailureKind


def verdict(provider: str, status: int | None, body: Any) -> tuple[FailureKind, str] | None:
    """What an answer proves, and who proved it."""
    text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)
    found = classify(read_body(status, text), LOCK.providers[provider].errors)
    return (found[0], found[1].source) if found else None


def messages(kind: str, message: str = "", code: Any = None) -> dict[str, Any]:
    """An error as the Messages API has it."""
    error: dict[str, Any] = {"type": kind, "message": message}
    return {"type": "error", "error": error | ({"code": code} if code is not None else {})}


GLM_CODES = {
    K.AUTH_REJECTED: "1000 1001 1002 1003 1004",
    K.BILLING: "1110 1111 1112 1113 1120 1121 1313 1315",
    K.REQUEST_REJECTED: "1210 1212 1213 1214 1215 1220 1221 1222 1301",
    K.MODEL_UNKNOWN: "1211",
    K.CONTEXT_OVERFLOW: "1261",
    K.RATE_LIMITED: "1302 1303",
    K.QUOTA_WINDOW: "1304 1308 1310 1316 1317 1318 1319 1320 1321",
    K.OVERLOADED: "1305 1312",
    K.PLAN_EXPIRED: "1309 1311 1314",
}


@pytest.mark.parametrize("provider", ["zai", "zhipu", "rehearsal", "rehearsal-x"])
@pytest.mark.parametrize(("kind", "code"), [(k, c) for k, codes in GLM_CODES.items() for c in codes.split()])
def test_glm_codes_decide_in_every_shape_they_come_in(provider: str, kind: FailureKind, code: str) -> None:
    shapes: list[tuple[int, Any]] = [
        (429, messages(code, "text")),  # 2025
        (429, messages("rate_limit_error", f"[{code}][text][request]", code)),  # 2026; the type lies
        (529, messages("overloaded_error", "text", int(code))),
        (200, {"error": {"code": code, "message": "text"}}),
        (200, {"code": int(code), "msg": "text", "success": False}),
        (500, f"API Error: Request rejected (429) · [{code}][text][request]"),
    ]
    for status, body in shapes:
        assert verdict(provider, status, body) == (kind, "body"), body


ANSWERS: list[tuple[str, int, Any, FailureKind]] = [
    ("anthropic", 401, messages("authentication_error", "invalid x-api-key"), K.AUTH_REJECTED),
    ("anthropic", 402, messages("billing_error", "no payment"), K.BILLING),
    ("anthropic", 400, messages("invalid_request_error", "Your credit balance is too low to access"), K.BILLING),
    ("anthropic", 400, messages("invalid_request_error", "prompt is too long: 250000 tokens"), K.CONTEXT_OVERFLOW),
    ("anthropic", 403, {"error": {"type": "forbidden", "message": "Request not allowed"}}, K.REQUEST_REJECTED),
    ("anthropic", 403, messages("permission_error", "not for this key"), K.AUTH_REJECTED),
    ("anthropic", 404, messages("not_found_error", "model: claude-x"), K.MODEL_UNKNOWN),
    ("anthropic", 413, messages("request_too_large", "32 MB"), K.REQUEST_REJECTED),
    ("anthropic", 429, messages("rate_limit_error", "slow down"), K.RATE_LIMITED),
    ("anthropic", 500, messages("api_error", "internal"), K.PROVIDER_ERROR),
    ("anthropic", 504, messages("timeout_error", "too long"), K.PROVIDER_ERROR),
    ("anthropic", 529, messages("overloaded_error", "Overloaded"), K.OVERLOADED),
    ("zai", 401, {"code": 401, "msg": "token expired or incorrect", "success": False}, K.AUTH_REJECTED),
    ("zai", 200, {"code": 401, "msg": "token expired or incorrect", "success": False}, K.AUTH_REJECTED),
    ("moonshot", 401, {"error": {"type": "invalid_authentication_error", "message": "bad"}}, K.AUTH_REJECTED),
    ("moonshot", 401, {"error": {"type": "incorrect_api_key_error", "message": "bad"}}, K.AUTH_REJECTED),
    ("moonshot", 429, {"error": {"type": "exceeded_current_quota_error", "message": "suspended"}}, K.BILLING),
    ("moonshot", 429, {"error": {"type": "rate_limit_reached_error", "message": "rpm"}}, K.RATE_LIMITED),
    ("moonshot", 429, {"error": {"type": "engine_overloaded_error", "message": "busy"}}, K.OVERLOADED),
    ("moonshot", 503, {"error": {"type": "server_unavailable", "message": "busy"}}, K.OVERLOADED),
    ("moonshot", 404, {"error": {"type": "resource_not_found_error", "message": "kimi-k2"}}, K.MODEL_UNKNOWN),
    ("moonshot-cn", 403, {"error": {"type": "permission_denied_error", "message": "no"}}, K.AUTH_REJECTED),
    ("moonshot", 400, {"error": {"type": "content_filter", "message": "no"}}, K.REQUEST_REJECTED),
    ("minimax", 401, messages("authorized_error", "login fail (1004)"), K.AUTH_REJECTED),
    ("minimax", 401, messages("authentication_error", "invalid api key (2049)"), K.AUTH_REJECTED),
    ("minimax", 402, messages("insufficient_balance_error", "insufficient balance (1008)"), K.BILLING),
    ("minimax", 500, messages("api_error", "insufficient balance (1008)"), K.BILLING),
    ("minimax", 429, messages("rate_limit_error", "usage limit exceeded (2056)"), K.QUOTA_WINDOW),
    ("minimax", 429, messages("rate_limit_error", "rate limit (1002)"), K.RATE_LIMITED),
    ("minimax", 400, messages("invalid_request_error", "unknown model 'minimax-m3' (2013)"), K.MODEL_UNKNOWN),
    ("minimax", 200, {"base_resp": {"status_code": 1004, "status_msg": "login fail"}}, K.AUTH_REJECTED),
    ("minimax", 200, {"base_resp": {"status_code": 1008, "status_msg": "no balance"}}, K.BILLING),
    ("minimax-cn", 200, {"choices": [], "base_resp": {"status_code": 2056, "status_msg": "limit"}}, K.QUOTA_WINDOW),
    ("minimax-cn", 200, {"base_resp": {"status_code": 1039, "status_msg": "tpm"}}, K.RATE_LIMITED),
    ("minimax-cn", 200, {"base_resp": {"status_code": 1026, "status_msg": "sensitive"}}, K.REQUEST_REJECTED),
    ("deepseek", 401, "Authentication Fails (governor)", K.AUTH_REJECTED),
    ("deepseek", 400, messages("invalid_request_error", "Model Not Exist"), K.MODEL_UNKNOWN),
    ("openrouter", 400, {"error": {"code": 400, "message": "x is not a valid model ID"}}, K.MODEL_UNKNOWN),
    ("openrouter", 400, {"error": {"code": 400, "message": "bad field"}}, K.REQUEST_REJECTED),
    ("openrouter", 401, {"error": {"code": 401, "message": "User not found."}}, K.AUTH_REJECTED),
    ("openrouter", 403, {"error": {"code": 403, "message": "flagged by moderation"}}, K.REQUEST_REJECTED),
    ("openrouter", 404, {"error": {"code": 404, "message": "No endpoints found for x/y."}}, K.MODEL_UNKNOWN),
    ("openrouter", 404, {"error": {"code": 404, "message": "No endpoints available"}}, K.REQUEST_REJECTED),
    ("openrouter", 200, {"error": {"code": 402, "message": "Insufficient credits"}}, K.BILLING),
    ("openrouter", 200, {"error": {"code": 502, "message": "upstream"}}, K.PROVIDER_ERROR),
    ("openrouter", 200, {"error": {"code": 503, "message": "no provider"}}, K.OVERLOADED),
    ("openrouter", 200, {"error": {"code": 429, "message": "slow down"}}, K.RATE_LIMITED),
    # inside a stream, which began with 200
    ("zai", 200, messages("overloaded_error", "Overloaded"), K.OVERLOADED),
    ("deepseek", 200, messages("api_error", "internal"), K.PROVIDER_ERROR),
    # not the API at all
    ("zai", 404, "<!DOCTYPE html><html>{}</html>", K.NOT_THE_API),
    ("zai", 200, "\n<html><body>log in to the hotel</body></html>", K.NOT_THE_API),
    ("zai", 403, "<html><h1>Attention required</h1></html>", K.NOT_THE_API),
]


@pytest.mark.parametrize(("provider", "status", "body", "kind"), ANSWERS)
def test_answers_of_providers(provider: str, status: int, body: Any, kind: FailureKind) -> None:
    assert verdict(provider, status, body) == (kind, "body")


STATUSES: list[tuple[str, int, Any, FailureKind]] = [
    ("anthropic", 400, messages("invalid_request_error", "max_tokens: 64000 > 8192"), K.REQUEST_REJECTED),
    ("deepseek", 401, {"error": {"message": "no"}}, K.AUTH_REJECTED),
    ("deepseek", 402, "Insufficient Balance", K.BILLING),
    ("deepseek", 422, "bad parameters", K.REQUEST_REJECTED),
    ("deepseek", 429, "", K.RATE_LIMITED),
    ("deepseek", 500, "", K.PROVIDER_ERROR),
    ("deepseek", 503, "", K.OVERLOADED),
    ("moonshot", 504, "<html>gateway time-out</html>", K.PROVIDER_ERROR),
    ("zai", 502, "<html>bad gateway</html>", K.PROVIDER_ERROR),
    ("zai", 404, "", K.MODEL_UNKNOWN),
    ("zai", 429, messages("1999", "a code nobody has seen"), K.RATE_LIMITED),
    ("zai", 418, "I'm a teapot", K.REQUEST_REJECTED),
    ("zai", 599, "", K.PROVIDER_ERROR),
]


@pytest.mark.parametrize(("provider", "status", "body", "kind"), STATUSES)
def test_the_status_decides_when_the_body_says_nothing(
    provider: str, status: int, body: Any, kind: FailureKind
) -> None:
    assert verdict(provider, status, body) == (kind, "http")


@pytest.mark.parametrize(
    ("provider", "status", "body"),
    [
        ("zai", 200, "ok"),
        ("zai", 200, ""),
        ("zai", 200, {"type": "message", "content": [{"type": "text", "text": "1113 429 rate limit"}]}),
        ("zai", 200, {"code": 200, "msg": "Operation successful", "success": True}),
        ("minimax", 200, {"base_resp": {"status_code": 0, "status_msg": "success"}}),
        ("anthropic", 200, "the function returns '<html>' on a rate_limit_error"),
    ],
)
def test_an_answer_without_an_error_proves_nothing(provider: str, status: int, body: Any) -> None:
    assert verdict(provider, status, body) is None


@pytest.mark.parametrize(
    ("provider", "status", "body", "kind"),
    [
        # numbers that are no codes
        ("zai", 500, messages("server", "took 1113 ms"), K.PROVIDER_ERROR),
        ("minimax", 400, messages("invalid_request_error", "max_tokens 1008 is too low"), K.REQUEST_REJECTED),
        # one provider's words in another's mouth
        ("zai", 400, messages("invalid_request_error", "credit balance is too low"), K.REQUEST_REJECTED),
        ("anthropic", 429, messages("rate_limit_error", "[1113][text]"), K.RATE_LIMITED),
        # the right words without the right type
        ("anthropic", 500, messages("api_error", "credit balance is too low to ask"), K.PROVIDER_ERROR),
        ("deepseek", 500, "Model Not Exist", K.PROVIDER_ERROR),
    ],
)
def test_near_misses_are_not_taken(provider: str, status: int, body: Any, kind: FailureKind) -> None:
    found = verdict(provider, status, body)
    assert found is not None
    assert found[0] is kind


def test_a_harness_line_that_carries_the_body_is_read_like_the_body() -> None:
    body = json.dumps(messages("rate_limit_error", "[1113][no balance][r1]", "1113"))
    answer = read_message(None, f"API Error: 429 {body} · retrying")
    assert answer.codes == ("1113", "rate_limit_error")
    found = classify(answer, LOCK.providers["zai"].errors)
    assert found is not None
    assert found[0] is K.BILLING


def test_a_harness_line_with_an_unfinished_body_keeps_its_bracketed_code() -> None:
    answer = read_message(429, 'API Error: {"error": · [1308][limit reached][r1]')
    assert answer == Answer(429, ("1308",), 'API Error: {"error": · [1308][limit reached][r1]')


def test_evidence_says_what_was_seen() -> None:
    found = classify(
        read_body(429, json.dumps(messages("1113", "Insufficient\n  balance"))), LOCK.providers["zai"].errors
    )
    assert found is not None
    assert str(found[1]) == "body: HTTP 429, code 1113: Insufficient balance"
    unknown = classify(Answer(None, ("1113",)), LOCK.providers["zai"].errors)
    assert unknown is not None
    assert str(unknown[1]) == "body: no HTTP status, code 1113"


def test_no_status_and_no_code_is_no_evidence() -> None:
    assert classify(Answer(None, (), "Connection error."), LOCK.providers["deepseek"].errors) is None


@pytest.mark.parametrize("body", ["[]", "3", "null", '{"error": "text"}', '{"error": {"code": []}}', "{", ""])
def test_bodies_of_any_shape_can_be_read(body: str) -> None:
    assert read_body(500, body).status == 500


SSE = "text/event-stream; charset=utf-8"
STARTED = 'event: message_start\ndata: {"type": "message_start", "message": {"model": "m-1"}}\n\n'
DELTA = 'event: content_block_delta\ndata: {"type": "content_block_delta", "delta": {"text": "1113 error"}}\n\n'
ENDED = 'event: message_delta\ndata: {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}\n\n'
PING = 'event: ping\ndata: {"type": "ping"}\n\n'
CHUNK = 'data: {"object": "chat.completion.chunk", "choices": [{"delta": {"content": "hi"}}]}\n\ndata: [DONE]\n\n'


def error_event(body: Any) -> str:
    return f"event: error\ndata: {json.dumps(body)}\n\n"


BEGUN = 'data: {"type": "response.created", "response": {"model": "m-1", "error": null}}\n\n'
SAID = 'data: {"type": "response.output_text.delta", "delta": "o"}\n\n'
FAILED = 'data: {"type": "response.failed", "response": {"error": {"code": "1113", "message": "no"}}}\n\n'


@pytest.mark.parametrize(
    ("provider", "status", "media_type", "text", "kind", "seen", "model"),
    [
        ("zai", 200, SSE, PING + STARTED + DELTA + ENDED, None, "HTTP 200, a message", "m-1"),
        ("zai", 200, SSE, (STARTED + ENDED).replace("\n", "\r\n"), None, "HTTP 200, a message", "m-1"),
        ("zai", 200, "", STARTED + ENDED, None, "HTTP 200, a message", "m-1"),  # fetched by what keeps no headers
        ("zai", 200, SSE, ": hello\n\n" + STARTED + ENDED, None, "HTTP 200, a message", "m-1"),
        ("zai", 200, "Text/Event-Stream", ": hello\n\n" + STARTED + ENDED, None, "HTTP 200, a message", "m-1"),
        ("zai", 200, SSE, STARTED + DELTA * 4, None, "HTTP 200, a message", "m-1"),
        ("zai", 200, SSE, STARTED + DELTA, None, "HTTP 200, a message", "m-1"),  # read until it spoke, no further
        ("zai", 200, SSE, STARTED + PING, K.NETWORK, "ended before the answer did", "m-1"),
        ("zai", 200, SSE, DELTA + ENDED, K.NOT_THE_API, "HTTP 200: event:", None),
        ("zai", 200, SSE, PING, K.NOT_THE_API, "HTTP 200: event: ping", None),
        ("zai", 200, SSE, CHUNK, K.NOT_THE_API, "HTTP 200: data:", None),
        ("zai", 200, SSE, "", K.NOT_THE_API, "an empty body", None),
        ("zai", 200, SSE, json.dumps({"type": "message", "model": "m-2"}), None, "HTTP 200, a message", "m-2"),
        ("zai", 200, "application/json", json.dumps({"type": "message"}), None, "HTTP 200, a message", None),
        ("zai", 200, SSE, error_event(messages("1308", "limit")), K.QUOTA_WINDOW, "in the stream (no HTTP", None),
        ("zai", 200, SSE, STARTED + error_event(messages("overloaded_error")), K.OVERLOADED, "overloaded", "m-1"),
        ("zai", 200, SSE, STARTED + ENDED + error_event(messages("1113")), None, "HTTP 200, a message", "m-1"),
        ("zai", 200, SSE, error_event(messages("strange_error", "no")), K.PROVIDER_ERROR, "strange_error", None),
        ("zai", 200, SSE, error_event(messages("invalid_request_error", "no")), K.REQUEST_REJECTED, "no", None),
        ("zai", 200, SSE, "event: error\ndata: out of order\n\n", K.PROVIDER_ERROR, "out of order", None),
        ("zai", 529, SSE, error_event(messages("rate_limit_error", "[1305][x]")), K.OVERLOADED, "HTTP 529", None),
        ("openrouter", 200, SSE, 'data: {"error": {"code": 402, "message": "no"}}\n\n', K.BILLING, "code 402", None),
        ("minimax", 200, SSE, 'data: {"base_resp": {"status_code": 1008}}\n\n', K.BILLING, "code 1008", None),
        (
            "minimax",
            200,
            SSE,
            STARTED + 'data: {"base_resp": {"status_code": 2056}}\n\n',
            K.QUOTA_WINDOW,
            "2056",
            "m-1",
        ),
        ("zai", 200, SSE, BEGUN + SAID, None, "HTTP 200, a message", "m-1"),
        ("zai", 200, SSE, BEGUN, K.NETWORK, "ended before the answer did", "m-1"),
        ("zai", 200, SSE, BEGUN + FAILED, K.BILLING, "code 1113", "m-1"),
        ("zai", 200, "application/json", '{"object": "response", "model": "m-3"}', None, "HTTP 200, a message", "m-3"),
        ("zai", 200, SSE, 'data: {"error": {"message": "no"}}\n\n', K.PROVIDER_ERROR, "no", None),
        ("zai", 200, SSE, 'data: {"error":\ndata: {"code": "1113"}}\n\n', K.BILLING, "code 1113", None),
        ("zai", 429, "application/json", json.dumps(messages("1113")), K.BILLING, "HTTP 429, code 1113", None),
        ("zai", 200, "text/html", "<html>event: error</html>", K.NOT_THE_API, "<html>", None),
    ],
)
def test_a_whole_answer_is_judged(
    provider: str, status: int, media_type: str, text: str, kind: FailureKind | None, seen: str, model: str | None
) -> None:
    found = judge(status, media_type, text, LOCK.providers[provider].errors)
    assert (found.kind, found.model) == (kind, model), found
    assert seen in found.seen


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_stream_reads_the_same_in_pieces_of_any_size(size: int) -> None:
    text, stream = (PING + STARTED + DELTA + ENDED).replace("\n", "\r\n"), Stream()
    before_the_end = len(text) - 2  # the empty line is what completes the event
    for at in range(0, before_the_end, size):
        stream.feed(text[at : min(at + size, before_the_end)])
    assert (stream.is_message, stream.model, stream.over) == (True, "m-1", False)
    stream.feed(text[before_the_end:])
    assert (stream.over, stream.error) == (True, None)


def free_probe(*proves: str, **good: Any) -> FreeProbe:
    provenance = {"source": "a test", "date": "2026-11-22", "confidence": "measured"}
    fields = {"url": "http://x", "key_as": "bearer", "proves": proves, "good": good, "provenance": provenance}
    return FreeProbe.model_validate(fields)


@pytest.mark.parametrize(
    ("probe", "status", "body", "kind", "seen"),
    [
        (free_probe("auth", ok=True), 200, {"ok": True}, None, "HTTP 200, ok is true"),
        (free_probe("auth", code=0), 200, {"code": "0"}, None, 'code is "0"'),
        (free_probe("auth", ok=True), 200, {"ok": 1}, K.UNKNOWN, "ok is 1"),
        (free_probe("auth", code=0), 200, {"code": False}, K.UNKNOWN, "code is false"),
        (free_probe("auth", "billing", ok=True), 200, {"ok": False}, K.BILLING, "ok is false"),
        (free_probe("auth", "quota", ok=True), 200, {"ok": False}, K.QUOTA_WINDOW, "ok is false"),
        (free_probe("auth", "billing", code=0), 200, {"code": 7}, K.UNKNOWN, "code is 7"),
        (free_probe("auth", "billing", code=0), 200, {"code": 1113}, K.BILLING, "code is 1113 (no HTTP status"),
        (free_probe("auth", ok=True), 200, {"other": 1}, K.NOT_THE_API, "other"),
        (free_probe("auth"), 200, {"data": []}, None, "HTTP 200"),
        (free_probe("auth"), 200, {"error": "no such endpoint"}, K.NOT_THE_API, "no such endpoint"),
        (free_probe("auth"), 200, "<html>", K.NOT_THE_API, "<html>"),
        (free_probe("auth"), 200, "", K.NOT_THE_API, "an empty body"),
        (free_probe("auth"), 404, {"message": "none"}, K.NOT_THE_API, "HTTP 404"),
        (free_probe("auth", "model"), 404, {"message": "none"}, K.MODEL_UNKNOWN, "HTTP 404"),
        (free_probe("auth"), 401, "no", K.AUTH_REJECTED, "HTTP 401"),
        (free_probe("auth"), 302, "", K.NOT_THE_API, "HTTP 302"),
        (free_probe("auth", ok=True), 500, {"ok": True}, K.PROVIDER_ERROR, "HTTP 500"),
    ],
)
def test_a_free_probe_is_read_by_what_the_lock_calls_good(
    probe: FreeProbe, status: int, body: Any, kind: FailureKind | None, seen: str
) -> None:
    text = body if isinstance(body, str) else json.dumps(body)
    found = read_free(probe, status, text, LOCK.providers["zai"].errors)
    assert (found.kind, seen in found.seen) == (kind, True), found
