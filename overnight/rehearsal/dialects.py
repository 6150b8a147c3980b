"""What providers say when they will not answer, as data: one table a shape.

Statuses, types and codes are those of the vendors' documents and of recorded
answers (until 2026-11-22). A row that is missing has not been seen: what is
nearest of the same shape is said instead, and then what Anthropic says, in its
own body. That is so for a client gate of all but Moonshot (Kimi Code) and
DashScope, for a place that is not served of all but Anthropic, for an unknown
model of DashScope, and for whatever a table below leaves out.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any, Literal, NamedTuple

Shape = Literal["anthropic", "zhipu", "moonshot", "deepseek", "minimax", "dashscope", "openrouter"]

REQUEST_ID = "req_rehearsal"


class Why(StrEnum):
    """Why a request is not answered by the model. A fault that is an error in words has the same value."""

    NO_KEY = "no-key"
    UNKNOWN_KEY = "key-refused"
    KEY_ELSEWHERE = "key-elsewhere"
    """The key is right in another region of the vendor."""
    FORBIDDEN = "forbidden"
    PLACE = "region-refused"
    """Requests from this place are not served."""
    CLIENT = "client"
    """The plan is for other clients."""
    UNKNOWN_MODEL = "unknown-model"
    OUTSIDE_PLAN = "outside-plan"
    BAD_REQUEST = "bad-request"
    TOO_LARGE = "too-large"
    CONTENT = "content-refused"
    NO_BALANCE = "no-balance"
    CREDIT_TOO_LOW = "credit-too-low"
    PAYMENT_REQUIRED = "payment-required"
    WINDOW_USED_UP = "window-used-up"
    PLAN_EXPIRED = "plan-expired"
    RATE_LIMITED = "rate-limited"
    OVERLOADED = "overloaded"
    UNAVAILABLE = "unavailable"
    SERVER_ERROR = "server-error"


class Words(NamedTuple):
    """One refusal. `code` is the vendor's own; `type` is empty where none is known. The message may hold
    `{wanted}`, `{model}`, `{problem}` and `{resets_at}`. A `plain` one comes as text.
    """

    status: int
    type: str
    message: str
    code: str = ""
    plain: bool = False


_NEAREST = {
    Why.KEY_ELSEWHERE: Why.UNKNOWN_KEY,
    Why.OUTSIDE_PLAN: Why.UNKNOWN_MODEL,
    Why.WINDOW_USED_UP: Why.RATE_LIMITED,
    Why.PLAN_EXPIRED: Why.NO_BALANCE,
    Why.NO_BALANCE: Why.CREDIT_TOO_LOW,
}

_ANTHROPIC = {
    Why.NO_KEY: Words(401, "authentication_error", "{wanted} header is required"),
    Why.UNKNOWN_KEY: Words(401, "authentication_error", "invalid x-api-key"),
    Why.FORBIDDEN: Words(
        403, "permission_error", "Your API key does not have permission to use the specified resource."
    ),
    Why.PLACE: Words(403, "forbidden", "Request not allowed"),
    Why.CLIENT: Words(403, "permission_error", "This client may not be used with this key."),
    Why.UNKNOWN_MODEL: Words(404, "not_found_error", "model: {model}"),
    Why.BAD_REQUEST: Words(400, "invalid_request_error", "{problem}"),
    Why.TOO_LARGE: Words(413, "request_too_large", "Request exceeds the maximum size"),
    Why.CONTENT: Words(400, "invalid_request_error", "Output blocked by content filtering policy"),
    Why.CREDIT_TOO_LOW: Words(
        400, "invalid_request_error", "Your credit balance is too low to access the Anthropic API."
    ),
    Why.PAYMENT_REQUIRED: Words(402, "billing_error", "Your account has insufficient balance."),
    Why.RATE_LIMITED: Words(429, "rate_limit_error", "Rate limit reached for requests"),
    Why.SERVER_ERROR: Words(500, "api_error", "Internal server error"),
    Why.UNAVAILABLE: Words(503, "api_error", "Service unavailable"),
    Why.OVERLOADED: Words(529, "overloaded_error", "Overloaded"),
}

_RESETS = "Usage limit reached for 5 hour. Your limit will reset at {resets_at:%Y-%m-%d %H:%M:%S}"
_ZHIPU = {
    Why.NO_KEY: Words(401, "authentication_error", "Header中未收到{wanted}参数，无法进行身份验证。", "1001"),
    Why.UNKNOWN_KEY: Words(401, "authentication_error", "身份验证失败。", "1000"),
    Why.UNKNOWN_MODEL: Words(400, "invalid_request_error", "Unknown Model, please check the model code.", "1211"),
    Why.OUTSIDE_PLAN: Words(429, "rate_limit_error", "Your plan does not include this model.", "1311"),
    Why.BAD_REQUEST: Words(400, "invalid_request_error", "{problem}", "1210"),
    Why.CONTENT: Words(400, "invalid_request_error", "Unsafe or sensitive content was found.", "1301"),
    Why.NO_BALANCE: Words(
        429, "rate_limit_error", "Insufficient balance or no resource package. Please recharge.", "1113"
    ),
    Why.WINDOW_USED_UP: Words(429, "rate_limit_error", _RESETS, "1308"),
    Why.PLAN_EXPIRED: Words(429, "rate_limit_error", "Your coding plan has expired.", "1309"),
    Why.RATE_LIMITED: Words(429, "rate_limit_error", "Rate limit reached for requests", "1302"),
    Why.OVERLOADED: Words(529, "overloaded_error", "Overloaded", "1305"),
}

_MOONSHOT = {
    Why.NO_KEY: Words(401, "incorrect_api_key_error", "Incorrect API key provided"),
    Why.UNKNOWN_KEY: Words(401, "invalid_authentication_error", "Invalid Authentication"),
    Why.FORBIDDEN: Words(403, "permission_denied_error", "Permission denied"),
    Why.CLIENT: Words(403, "access_terminated_error", "This plan is for coding agents only"),
    Why.UNKNOWN_MODEL: Words(404, "resource_not_found_error", "Not found the model {model} or Permission denied"),
    Why.CONTENT: Words(400, "content_filter", "The request was rejected because it was considered high risk"),
    Why.NO_BALANCE: Words(429, "exceeded_current_quota_error", "Your account is suspended, please check your balance"),
    Why.WINDOW_USED_UP: Words(429, "", "You have reached your usage limit for this billing cycle"),
    Why.RATE_LIMITED: Words(429, "rate_limit_reached_error", "Your account reached max organization concurrency"),
    Why.OVERLOADED: Words(429, "engine_overloaded_error", "The engine is currently overloaded"),
    Why.UNAVAILABLE: Words(503, "server_unavailable", "The server is unavailable"),
}

_DEEPSEEK = {
    Why.NO_KEY: Words(401, "authentication_error", "Authentication Fails (no key in {wanted})"),
    Why.UNKNOWN_KEY: Words(401, "", "Authentication Fails (governor)", plain=True),
    Why.UNKNOWN_MODEL: Words(400, "invalid_request_error", "Model Not Exist"),
    Why.NO_BALANCE: Words(402, "billing_error", "Insufficient Balance"),
    Why.OVERLOADED: Words(503, "overloaded_error", "Service overloaded"),
}

_MINIMAX = {
    Why.NO_KEY: Words(401, "authorized_error", "login fail: no key in {wanted}", "1004"),
    Why.UNKNOWN_KEY: Words(401, "authentication_error", "login fail", "1004"),
    Why.KEY_ELSEWHERE: Words(401, "authentication_error", "invalid api key", "2049"),
    Why.UNKNOWN_MODEL: Words(400, "invalid_request_error", "unknown model '{model}'", "2013"),
    Why.NO_BALANCE: Words(402, "insufficient_balance_error", "insufficient balance", "1008"),
    Why.WINDOW_USED_UP: Words(429, "rate_limit_error", "usage limit exceeded", "2056"),
    Why.RATE_LIMITED: Words(429, "rate_limit_error", "rate limit", "1002"),
}

_DASHSCOPE = {
    Why.NO_KEY: Words(403, "", "api-key is required"),
    Why.UNKNOWN_KEY: Words(401, "", "Incorrect API key provided.", "InvalidApiKey"),
    Why.CLIENT: Words(403, "", "The coding plan is only available for Coding Agents"),
    Why.OUTSIDE_PLAN: Words(403, "", "Access to the model is denied.", "AccessDenied.Unpurchased"),
    Why.CONTENT: Words(400, "", "Input data may contain inappropriate content.", "DataInspectionFailed"),
    Why.NO_BALANCE: Words(400, "", "Access denied, the account is in arrears.", "Arrearage"),
    Why.PLAN_EXPIRED: Words(401, "", "Incorrect API key provided.", "InvalidApiKey"),
    Why.WINDOW_USED_UP: Words(429, "", "Allocated quota exceeded.", "Throttling.AllocationQuota"),
    Why.RATE_LIMITED: Words(429, "", "Requests rate limit exceeded.", "Throttling.RateQuota"),
    Why.OVERLOADED: Words(429, "", "The service is overloaded.", "Throttling.ServiceOverloaded"),
}

_OPENROUTER = {
    Why.NO_KEY: Words(401, "", "No auth credentials found", "401"),
    Why.UNKNOWN_KEY: Words(401, "", "User not found.", "401"),
    Why.UNKNOWN_MODEL: Words(400, "", "{model} is not a valid model ID", "400"),
    Why.BAD_REQUEST: Words(400, "", "{problem}", "400"),
    Why.CONTENT: Words(403, "", "The input was flagged by moderation", "403"),
    Why.NO_BALANCE: Words(402, "", "Insufficient credits", "402"),
    Why.RATE_LIMITED: Words(429, "", "Rate limit exceeded", "429"),
    Why.OVERLOADED: Words(503, "", "No provider is available", "503"),
}

TABLES: dict[Shape, dict[Why, Words]] = {
    "anthropic": _ANTHROPIC,
    "zhipu": _ZHIPU,
    "moonshot": _MOONSHOT,
    "deepseek": _DEEPSEEK,
    "minimax": _MINIMAX,
    "dashscope": _DASHSCOPE,
    "openrouter": _OPENROUTER,
}


def words_of(shape: Shape, why: Why) -> tuple[Shape, Words]:
    """What is said, and the shape whose body says it."""
    for table in (shape, "anthropic"):
        nearest: Why | None = why
        while nearest is not None:
            if nearest in TABLES[table]:
                return table, TABLES[table][nearest]
            nearest = _NEAREST.get(nearest)
    raise KeyError(why)


def body_of(shape: Shape, words: Words) -> dict[str, Any]:
    """The JSON body of a refusal."""
    return _BODIES.get(shape, _messages_api)(words)


def body_in_ok(shape: Shape, words: Words) -> dict[str, Any]:
    """The body of the same refusal when it comes with HTTP 200."""
    if shape == "minimax":
        return {"base_resp": {"status_code": int(words.code), "status_msg": words.message}}
    return body_of(shape, words)


def _messages_api(words: Words) -> dict[str, Any]:
    error = {"type": words.type, "message": words.message}
    if words.type == "forbidden":  # the edge says it, before the API is reached
        return {"error": error}
    return {"type": "error", "error": error, "request_id": REQUEST_ID}


def _zhipu(words: Words) -> dict[str, Any]:
    """As seen in 2026: capacity and quota answers wear Anthropic's type and put the code into the message too."""
    error = {"code": words.code, "message": words.message}
    if words.status in (429, 529):
        error = {"type": words.type, "code": words.code, "message": f"[{words.code}][{words.message}][{REQUEST_ID}]"}
    return {"type": "error", "error": error, "request_id": REQUEST_ID}


def _openai(words: Words) -> dict[str, Any]:
    return {"error": {"message": words.message, **({"type": words.type} if words.type else {})}}


def _minimax(words: Words) -> dict[str, Any]:
    return _messages_api(words._replace(message=f"{words.message} ({words.code})"))


def _dashscope(words: Words) -> dict[str, Any]:
    return {**({"code": words.code} if words.code else {}), "message": words.message, "request_id": REQUEST_ID}


def _openrouter(words: Words) -> dict[str, Any]:
    return {"error": {"code": int(words.code), "message": words.message}}


_BODIES: dict[Shape, Callable[[Words], dict[str, Any]]] = {
    "zhipu": _zhipu,
    "moonshot": _openai,
    "minimax": _minimax,
    "dashscope": _dashscope,
    "openrouter": _openrouter,
}
