"""Vendors' own error codes, as data: what a site can be told to answer by code.

What a request can meet by itself is in the tables of `dialects`; here stand the
codes that only a fault brings. Words are those of the vendors' lists (docs.z.ai
and docs.bigmodel.cn, 2026-11-22), shortened. The status of ZhiPu's 111x, 112x,
1303 and 1312 is not documented, nor is that of MiniMax's 1026, 1027 and 1039.
"""

from __future__ import annotations

from overnight.rehearsal.dialects import TABLES, Shape, Words

_LATER = "Your limit will reset at {resets_at:%Y-%m-%d %H:%M:%S}"


def _zhipu(status: int, code: str, message: str) -> Words:
    kinds = {401: "authentication_error", 429: "rate_limit_error"}
    return Words(status, kinds.get(status, "invalid_request_error"), message, code)


_MORE: dict[Shape, tuple[Words, ...]] = {
    "zhipu": (
        _zhipu(401, "1002", "Invalid Authentication Token, please confirm that it was passed correctly."),
        _zhipu(401, "1003", "Authentication Token expired, please obtain a new one."),
        _zhipu(401, "1004", "Authentication failed with the provided Authentication Token."),
        _zhipu(429, "1110", "Your account is currently inactive."),
        _zhipu(429, "1111", "Your account does not exist."),
        _zhipu(429, "1112", "Your account has been locked, please contact customer service."),
        _zhipu(429, "1120", "Unable to access your account, please try again later."),
        _zhipu(429, "1121", "Account has irregular activities and has been locked."),
        _zhipu(400, "1212", "Current model does not support this call method."),
        _zhipu(400, "1213", "A parameter was not received properly."),
        _zhipu(400, "1214", "Invalid parameter. Please check the documentation."),
        _zhipu(400, "1220", "You do not have permission to access this API."),
        _zhipu(400, "1221", "The API has been taken offline."),
        _zhipu(404, "1222", "The API does not exist."),
        _zhipu(400, "1261", "Prompt too long"),
        _zhipu(429, "1303", "High frequency usage of this API, please reduce frequency."),
        _zhipu(429, "1304", "The daily call limit of this API has been reached."),
        _zhipu(429, "1310", f"Weekly/Monthly limit exhausted. {_LATER}"),
        _zhipu(429, "1312", "The model is in heavy use, please try again later or take another model."),
        _zhipu(429, "1313", "Your account's usage does not comply with the Fair Use Policy, and is restricted."),
        _zhipu(429, "1314", "The package of your enterprise has expired."),
        _zhipu(429, "1316", f"Usage limit reached for 5 hour. {_LATER}"),
        _zhipu(429, "1317", f"Usage limit reached for 7 day. {_LATER}"),
    ),
    "minimax": (
        Words(400, "invalid_request_error", "input new_sensitive", "1026"),
        Words(400, "invalid_request_error", "output new_sensitive", "1027"),
        Words(429, "rate_limit_error", "token limit exceeded", "1039"),
    ),
}


def _codes(shape: Shape) -> dict[str, Words]:
    """Moonshot's codes are its types. The first row with a code says it."""
    known: dict[str, Words] = {}
    for words in (*TABLES[shape].values(), *_MORE.get(shape, ())):
        code = words.type if shape == "moonshot" else words.code
        if code:
            known.setdefault(code, words)
    return known


_KNOWN: dict[Shape, dict[str, Words]] = {
    shape: _codes(shape)
    for shape in TABLES
    if shape != "openrouter"  # whose codes are the HTTP status
}
CODES = frozenset(code for known in _KNOWN.values() for code in known)
"""Every code that a site can be told to answer with, of all shapes."""


def coded(shape: Shape, code: str) -> tuple[Shape, Words]:
    """What a code says, and the shape that says it: `shape` where it knows the code, else the first that does.

    Raises:
        KeyError: no shape knows it.
    """
    for table in (shape, *_KNOWN):
        words = _KNOWN.get(table, {}).get(code)
        if words is not None:
            return table, words
    raise KeyError(code)
