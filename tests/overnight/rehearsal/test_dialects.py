"""Each shape's refusals, read as the probe reads them: by the rules that the lock has for that provider."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import get_args

import pytest

from overnight import lockfile
from overnight.failures import FailureKind
from overnight.rehearsal.dialects import Shape, Why
from overnight.rehearsal.refusals import JSON, TEXT, Refusal, refuse, refuse_in_ok
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
