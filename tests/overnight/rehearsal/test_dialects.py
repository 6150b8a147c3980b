"""Each shape's refusals, read as the probe reads them: by the rules that the lock has for that provider."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import get_args

import pytest

from overnight import lockfile
from overnight.failures import FailureKind
from overnight.rehearsal.codes import CODES, coded
from overnight.rehearsal.dialects import Shape, Why
from overnight.rehearsal.faults import Fault, FaultKind
from overnight.rehearsal.refusals import HTML, JSON, TEXT, Refusal, refusal, refuse, refuse_in_ok, refuse_path
from overnight.wire import judge

K, W = FailureKind, Why
LOCK = lockfile.load()
SHAPES: tuple[Shape, ...] = get_args(Shape)
HOLES: dict[str, object] = {
    "wanted": "Authorization",
    "model": "m-1",
    "problem": "messages are required",
    "resets_at": datetime(2026, 11, 22, 18, tzinfo=UTC),
}

# status, then a piece of the body
SAID: dict[Shape, dict[Why, tuple[int, str]]] = {
    "anthropic": {
        W.NO_KEY: (401, '"type": "authentication_error", "message": "Authorization header is required"'),
        W.PLACE: (403, '{"error": {"type": "forbidden", "message": "Request not allowed"}}'),
        W.UNKNOWN_MODEL: (404, '"not_found_error", "message": "model: m-1"'),
        W.NO_BALANCE: (400, "Your credit balance is too low"),
        W.OVERLOADED: (529, '"overloaded_error"'),
    },
    "zhipu": {
        W.NO_KEY: (401, '"code": "1001"'),
        W.UNKNOWN_MODEL: (400, '"code": "1211"'),
        W.OUTSIDE_PLAN: (429, '"code": "1311"'),
        W.NO_BALANCE: (429, '"type": "rate_limit_error", "code": "1113", "message": "[1113]['),
        W.PLAN_EXPIRED: (429, '"code": "1309"'),
        W.CONTENT: (400, '"code": "1301"'),
        W.CLIENT: (403, '"permission_error"'),
    },
    "moonshot": {
        W.UNKNOWN_KEY: (
            401,
            '{"error": {"message": "Invalid Authentication", "type": "invalid_authentication_error"}}',
        ),
        W.UNKNOWN_MODEL: (404, '"resource_not_found_error"'),
        W.NO_BALANCE: (429, '"exceeded_current_quota_error"'),
        W.OVERLOADED: (429, '"engine_overloaded_error"'),
        W.CLIENT: (403, '"access_terminated_error"'),
    },
    "deepseek": {
        W.UNKNOWN_KEY: (401, "Authentication Fails (governor)"),
        W.UNKNOWN_MODEL: (400, "Model Not Exist"),
        W.NO_BALANCE: (402, "Insufficient Balance"),
        W.OVERLOADED: (503, '"overloaded_error"'),
    },
    "minimax": {
        W.UNKNOWN_KEY: (401, '"authentication_error", "message": "login fail (1004)"'),
        W.KEY_ELSEWHERE: (401, "invalid api key (2049)"),
        W.NO_BALANCE: (402, '"insufficient_balance_error"'),
        W.WINDOW_USED_UP: (429, "(2056)"),
    },
    "dashscope": {
        W.NO_KEY: (403, '{"message": "api-key is required"'),
        W.UNKNOWN_KEY: (401, '{"code": "InvalidApiKey"'),
        W.PLAN_EXPIRED: (401, '{"code": "InvalidApiKey"'),
        W.NO_BALANCE: (400, '"Arrearage"'),
        W.CLIENT: (403, "only available for Coding Agents"),
        W.UNKNOWN_MODEL: (404, '"not_found_error"'),
    },
    "openrouter": {
        W.UNKNOWN_KEY: (401, '{"error": {"code": 401, "message": "User not found."}}'),
        W.NO_BALANCE: (402, '"code": 402'),
        W.OVERLOADED: (503, '"code": 503'),
        W.CONTENT: (403, '"code": 403'),
    },
}

# what the lock's rules must make of each; where a provider's words differ, below
MEANT = {
    W.NO_KEY: K.AUTH_REJECTED,
    W.UNKNOWN_KEY: K.AUTH_REJECTED,
    W.KEY_ELSEWHERE: K.AUTH_REJECTED,
    W.FORBIDDEN: K.AUTH_REJECTED,
    W.UNKNOWN_MODEL: K.MODEL_UNKNOWN,
    W.OUTSIDE_PLAN: K.MODEL_UNKNOWN,
    W.BAD_REQUEST: K.REQUEST_REJECTED,
    W.CONTENT: K.REQUEST_REJECTED,
    W.NO_BALANCE: K.BILLING,
    W.PAYMENT_REQUIRED: K.BILLING,
    W.RATE_LIMITED: K.RATE_LIMITED,
    W.OVERLOADED: K.OVERLOADED,
    W.SERVER_ERROR: K.PROVIDER_ERROR,
}
DIFFERENT: dict[tuple[Shape, Why], FailureKind] = {
    ("zhipu", W.OUTSIDE_PLAN): K.PLAN_EXPIRED,
    ("zhipu", W.PLAN_EXPIRED): K.PLAN_EXPIRED,
    ("zhipu", W.WINDOW_USED_UP): K.QUOTA_WINDOW,
    ("minimax", W.WINDOW_USED_UP): K.QUOTA_WINDOW,
    ("dashscope", W.OUTSIDE_PLAN): K.BILLING,
    ("dashscope", W.CLIENT): K.REQUEST_REJECTED,
    ("anthropic", W.PLACE): K.REQUEST_REJECTED,
}


def filled(shape: Shape, why: Why) -> Refusal:
    return refuse(shape, why, None, **HOLES)


@pytest.mark.parametrize(("shape", "why"), [(shape, why) for shape, said in SAID.items() for why in said])
def test_a_refusal_has_the_status_and_the_body_of_its_shape(shape: Shape, why: Why) -> None:
    status, piece = SAID[shape][why]
    refused = filled(shape, why)
    assert (refused.status, piece in refused.body.decode()) == (status, True), refused.body.decode()
    plain = (shape, why) == ("deepseek", W.UNKNOWN_KEY)
    assert refused.media_type == (TEXT if plain else JSON)
    assert plain or json.loads(refused.body)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("why", Why)
def test_every_refusal_can_be_said_in_every_shape_and_means_the_same(shape: Shape, why: Why) -> None:
    refused = filled(shape, why)
    assert refused.status >= 400
    assert b"{" not in refused.body.replace(b'{"', b"")
    expected = DIFFERENT.get((shape, why), MEANT.get(why))
    if expected is not None:
        found = judge(refused.status, refused.media_type, refused.body.decode(), LOCK.providers[shape].errors)
        assert found.kind is expected, found


def test_kimi_code_has_a_client_gate_and_a_window_of_its_own() -> None:
    rules = LOCK.providers["kimi-coding"].errors
    for why, kind in ((W.CLIENT, K.REQUEST_REJECTED), (W.WINDOW_USED_UP, K.QUOTA_WINDOW)):
        refused = filled("moonshot", why)
        assert judge(refused.status, refused.media_type, refused.body.decode(), rules).kind is kind


@pytest.mark.parametrize(
    ("shape", "why", "kind", "piece"),
    [
        ("zhipu", W.WINDOW_USED_UP, K.QUOTA_WINDOW, '"1308"'),
        (
            "minimax",
            W.NO_BALANCE,
            K.BILLING,
            '{"base_resp": {"status_code": 1008, "status_msg": "',
        ),
        ("minimax", W.WINDOW_USED_UP, K.QUOTA_WINDOW, "2056"),
        ("openrouter", W.NO_BALANCE, K.BILLING, '{"error": {"code": 402'),
        ("dashscope", W.NO_BALANCE, K.BILLING, '{"code": "Arrearage"'),
        ("anthropic", W.OVERLOADED, K.OVERLOADED, '"overloaded_error"'),
    ],
)
def test_a_refusal_inside_200(shape: Shape, why: Why, kind: FailureKind, piece: str) -> None:
    refused = refuse_in_ok(shape, why, **HOLES)
    assert (refused.status, piece in refused.body.decode()) == (200, True)
    assert judge(200, JSON, refused.body.decode(), LOCK.providers[shape].errors).kind is kind


NOW = datetime(2026, 11, 22, 13, tzinfo=UTC)

# what the vendors document or have been seen to answer: the status, and what the lock's rules must make of it
CODED: dict[Shape, dict[str, tuple[int, FailureKind]]] = {
    "zhipu": {
        **dict.fromkeys(("1000", "1001", "1002", "1003", "1004"), (401, K.AUTH_REJECTED)),
        "1113": (429, K.BILLING),
        "1211": (400, K.MODEL_UNKNOWN),
        **dict.fromkeys(("1210", "1212", "1213", "1214", "1220", "1221", "1301"), (400, K.REQUEST_REJECTED)),
        "1222": (404, K.REQUEST_REJECTED),
        **dict.fromkeys(("1110", "1111", "1112", "1120", "1121", "1313"), (429, K.BILLING)),
        "1261": (400, K.CONTEXT_OVERFLOW),
        **dict.fromkeys(("1302", "1303"), (429, K.RATE_LIMITED)),
        **dict.fromkeys(("1304", "1308", "1310", "1316", "1317"), (429, K.QUOTA_WINDOW)),
        "1305": (529, K.OVERLOADED),
        "1312": (429, K.OVERLOADED),
        **dict.fromkeys(("1309", "1311", "1314"), (429, K.PLAN_EXPIRED)),
    },
    "moonshot": {
        "invalid_authentication_error": (401, K.AUTH_REJECTED),
        "exceeded_current_quota_error": (429, K.BILLING),
        "engine_overloaded_error": (429, K.OVERLOADED),
    },
    "minimax": {
        "1004": (401, K.AUTH_REJECTED),
        "2049": (401, K.AUTH_REJECTED),
        "1008": (402, K.BILLING),
        "2056": (429, K.QUOTA_WINDOW),
        **dict.fromkeys(("1002", "1039"), (429, K.RATE_LIMITED)),
        **dict.fromkeys(("1026", "1027"), (400, K.REQUEST_REJECTED)),
    },
    "dashscope": {"InvalidApiKey": (401, K.AUTH_REJECTED), "Arrearage": (400, K.BILLING)},
}


def answered(fault: Fault, shape: Shape) -> Refusal:
    found = refusal(fault, shape, NOW, "m-1")
    assert found is not None
    return found


@pytest.mark.parametrize(("shape", "code"), [(shape, code) for shape, codes in CODED.items() for code in codes])
def test_a_code_has_the_status_and_the_meaning_of_its_vendor(shape: Shape, code: str) -> None:
    status, kind = CODED[shape][code]
    said = answered(Fault(FaultKind.CODED, code=code), shape)
    body = said.body.decode()
    assert (said.status, code in body, "{" in body.replace('{"', "")) == (status, True, False), body
    found = judge(status, JSON, body, LOCK.providers[shape].errors)
    assert found.kind is kind, found


def test_a_code_that_two_vendors_have_is_said_as_the_site_would() -> None:
    assert answered(Fault(FaultKind.CODED, code="1002"), "zhipu").status == 401
    assert answered(Fault(FaultKind.CODED, code="1002"), "minimax").status == 429
    assert answered(Fault(FaultKind.CODED, code="1002"), "anthropic").status == 401
    with pytest.raises(KeyError):
        coded("zhipu", "9999")


@pytest.mark.parametrize("shape", SHAPES)
def test_every_code_can_be_said_in_every_shape_and_inside_200(shape: Shape) -> None:
    for code in CODES:
        refused = answered(Fault(FaultKind.CODED, code=code, retry_after_s=2), shape)
        assert (refused.status >= 400, refused.retry_after_s) == (True, 2)
        inside = answered(Fault(FaultKind.ERROR_IN_OK, code=code), shape)
        assert (inside.status, code in inside.body.decode()) == (200, True)


def test_a_window_names_the_time_of_its_reset() -> None:
    body = answered(Fault(FaultKind.CODED, code="1308"), "zhipu").body.decode()
    assert "[1308][Usage limit reached for 5 hour. Your limit will reset at 2026-11-22 18:00:00]" in body


@pytest.mark.parametrize(
    ("shape", "not_found", "unknown"),
    [
        ("anthropic", "not_found_error", "1211"),
        ("zhipu", "not_found_error", "1211"),
        ("moonshot", "resource_not_found_error", "1211"),
        ("deepseek", "not_found_error", "Model Not Exist"),
        ("minimax", "not_found_error", "unknown model 'm-1'"),
    ],
)
def test_a_model_is_unknown_at_404_and_at_400(shape: Shape, not_found: str, unknown: str) -> None:
    for kind, status, piece in ((FaultKind.MODEL_NOT_FOUND, 404, not_found), (FaultKind.UNKNOWN_MODEL, 400, unknown)):
        said = answered(Fault(kind), shape)
        assert (said.status, piece in said.body.decode()) == (status, True), said.body.decode()
        spoken = said.said[0] if said.said else shape
        assert judge(said.status, JSON, said.body.decode(), LOCK.providers[spoken].errors).kind is K.MODEL_UNKNOWN


@pytest.mark.parametrize(
    ("shape", "status", "media_type", "piece"),
    [
        ("zhipu", 200, JSON, '{"code": 500, "msg": "404 NOT_FOUND", "success": false}'),
        ("moonshot", 404, JSON, '"error": "url.not_found"'),
        ("minimax", 404, TEXT, "404 page not found"),
        ("dashscope", 400, JSON, '{"code": "InvalidParameter", "message": "url error'),
        ("anthropic", 404, JSON, '"not_found_error"'),
        ("openrouter", 404, JSON, '"not_found_error"'),
    ],
)
def test_a_path_where_nothing_is(shape: Shape, status: int, media_type: str, piece: str) -> None:
    said = refuse_path(shape, "POST", "/v1/v1/messages")
    assert (said.status, said.media_type, piece in said.body.decode()) == (status, media_type, True)


def test_a_firewall_answers_for_every_vendor() -> None:
    pages = {answered(Fault(FaultKind.FIREWALL_PAGE), shape) for shape in SHAPES}
    assert [(page.status, page.media_type) for page in pages] == [(403, HTML)]
