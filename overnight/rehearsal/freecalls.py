"""The calls of each shape that cost nothing: who is let in, and what the body says.

Paths are below the site. Several of them come with HTTP 200 for a bad key, or
without any key: probes that pass wrongly are the reason they are here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from overnight.rehearsal.dialects import Shape, Why

Body = dict[str, Any]
_RESETS_S = 2 * 3600


class Account(NamedTuple):
    """Whose free call it is: whether it has money, and what of its plan's shortest window is used."""

    money: bool = True
    used_percent: int = 1


@dataclass(frozen=True)
class FreeCall:
    """One path of a shape.

    `good` is the body for a key that is let in, by its account. `key` "bearer"
    reads the Authorization header, whatever the site takes for chats; "raw"
    reads it with and without `Bearer`. `bad` is the body inside HTTP 200 for a
    key that is not let in; None refuses as a chat does.
    """

    path: str
    key: Literal["bearer", "raw", "none"]
    good: Callable[[Account], Body]
    bad: Callable[[Why], Body] | None = None


def _monitor(account: Account) -> Body:
    resets_ms = int((time.time() + _RESETS_S) * 1000)
    windows = [
        {"type": "TOKENS_LIMIT", "unit": unit, "percentage": percent, "nextResetTime": resets_ms}
        for unit, percent in ((3, account.used_percent), (6, 1))
    ]
    return {"code": 200, "msg": "Operation successful", "success": True, "data": {"limits": windows, "level": "pro"}}


def _monitor_refuses(why: Why) -> Body:
    if why is Why.NO_KEY:
        return {"code": 1001, "msg": "Header中未收到Authorization参数，无法进行身份验证。", "success": False}
    return {"code": 401, "msg": "token expired or incorrect", "success": False}


def _moonshot(account: Account) -> Body:
    left = 10.0 if account.money else 0.0
    return {"code": 0, "data": {"available_balance": left, "voucher_balance": 0.0, "cash_balance": left}}


def _deepseek(account: Account) -> Body:
    left = [{"currency": "USD", "total_balance": "10.00" if account.money else "0.00"}]
    return {"is_available": account.money, "balance_infos": left}


def _remains(_: Account) -> Body:
    return {"model_remains": [], "base_resp": {"status_code": 0, "status_msg": "success"}}


def _remains_refuses(why: Why) -> Body:
    code, said = (2049, "invalid api key") if why is Why.KEY_ELSEWHERE else (1004, "login fail")
    return {"base_resp": {"status_code": code, "status_msg": said}}


def _listed(_: Account) -> Body:
    return {"data": [{"id": "any/model"}]}


def _openrouter_key(_: Account) -> Body:
    return {"data": {"label": "rehearsal", "limit": None, "usage": 0, "is_free_tier": False}}


def _openrouter_credits(account: Account) -> Body:
    return {"data": {"total_credits": 10, "total_usage": 0 if account.money else 10}}


# OpenRouter's base URL ends in /api: its paths are found with that part and without
FREE_CALLS: Mapping[Shape, tuple[FreeCall, ...]] = {
    "anthropic": (),  # /v1/models and count_tokens, which every site has
    "zhipu": (FreeCall("/api/monitor/usage/quota/limit", "raw", _monitor, _monitor_refuses),),
    "moonshot": (FreeCall("/v1/users/me/balance", "bearer", _moonshot),),
    "deepseek": (FreeCall("/user/balance", "bearer", _deepseek), FreeCall("/models", "bearer", _listed)),
    "minimax": (FreeCall("/v1/api/openplatform/coding_plan/remains", "bearer", _remains, _remains_refuses),),
    "dashscope": (FreeCall("/compatible-mode/v1/models", "bearer", _listed),),
    "openrouter": tuple(
        call
        for start in ("/api", "")
        for call in (
            FreeCall(f"{start}/v1/key", "bearer", _openrouter_key),
            FreeCall(f"{start}/v1/credits", "bearer", _openrouter_credits),
            FreeCall(f"{start}/v1/models", "none", _listed),
        )
    ),
}
