"""One emulated provider: what it accepts, how it answers, and a record of every request."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from overnight.lockfile import Header
from overnight.rehearsal import answers, refusals
from overnight.rehearsal.faults import Fault, FaultKind
from overnight.rehearsal.model import Tape, probe_nonce, reply, turn_of
from overnight.rehearsal.refusals import Refusal, Shape

MODELS = ("rehearsal-large", "rehearsal-small")

_NOT_FOUND = {"type": "error", "error": {"type": "not_found_error", "message": "Not Found"}}


@dataclass(frozen=True)
class Site:
    """A provider as its clients can know it.

    `name` is part of its URL. A request is let in by the right key in any
    header of `accepts`. `answers_as` is the model its answers name; None for
    the one that was asked for.
    """

    name: str
    key: str = field(repr=False)
    accepts: frozenset[Header] = frozenset({Header.BEARER})
    models: tuple[str, ...] = MODELS
    shape: Shape = "zhipu"
    fault: Fault | None = None
    answers_as: str | None = None


@dataclass(frozen=True)
class Call:
    """One request, kept without its key.

    `path` is below the site. `keys` maps each credential header that came to
    the fingerprint of its key. `status` is what was answered, None when no head
    is ever sent. `turn` is the turn of the model that was asked for, `faulty`
    whether the site's fault hit. The fields from `model` on are a chat's.
    """

    at: datetime
    site: str
    method: str
    path: str
    keys: Mapping[Header, str]
    status: int | None
    model: str = ""
    tools: tuple[str, ...] = ()
    stream: bool = False
    is_probe: bool = False
    turn: int = 0
    faulty: bool = False


def fingerprint(key: str) -> str:
    """The first 8 hex digits of the key's SHA-256."""
    return hashlib.sha256(key.encode()).hexdigest()[:8]


class Desk:
    """Serves one site. `record` is told of each request before it is answered."""

    def __init__(self, site: Site, tapes: Sequence[Tape], record: Callable[[Call], None]) -> None:
        self._site = site
        self._tapes = tapes
        self._record = record
        self._lock = threading.Lock()
        self.set_fault(site.fault)

    def set_fault(self, fault: Fault | None) -> None:
        """From any thread; counts start afresh."""
        with self._lock:
            self._fault, self._fault_seen = fault, 0

    def routes(self) -> list[Route]:
        return [
            Route("/v1/messages", self._chat, methods=["POST"]),
            Route("/v1/messages/count_tokens", self._count_tokens, methods=["POST"]),
            Route("/v1/models", self._models, methods=["GET"]),
            Route("/{path:path}", self._elsewhere, methods=["GET", "POST"]),
        ]

    async def _chat(self, request: Request) -> Response:
        keys, body = _keys(request), await _body(request)
        turn, stream = turn_of(body), body.get("stream") is True
        refused = self._check_key(keys) or self._check_chat(body)
        fault = None if refused else self._take_fault(turn)
        now = datetime.now(UTC)
        if fault:
            refused = refusals.refusal(fault, self._site.shape, now)
        self._record(
            Call(
                at=now,
                site=self._site.name,
                method="POST",
                path=_path(request),
                keys=_prints(keys),
                status=_status(refused, fault),
                model=str(body.get("model", "")),
                tools=tuple(str(tool.get("name", "")) for tool in body.get("tools") or ()),
                stream=stream,
                is_probe=probe_nonce(body) is not None,
                turn=turn,
                faulty=fault is not None,
            )
        )
        if refused:
            return Played(answers.refuse(refused))
        model = self._site.answers_as or str(body["model"])
        return Played(answers.speak(reply(body, self._tapes), model, turn, stream=stream, fault=fault))

    async def _count_tokens(self, request: Request) -> Response:
        return self._plain(request, {"input_tokens": len(await request.body()) // 4})

    async def _models(self, request: Request) -> Response:
        data = [{"type": "model", "id": name, "display_name": name} for name in self._site.models]
        return self._plain(request, {"data": data, "has_more": False})

    async def _elsewhere(self, request: Request) -> Response:
        """The start page and the greeting that clients warm up on need no key; nothing else is here."""
        known = _path(request) in ("/", "/api/hello")
        answer = JSONResponse({"message": "hello"}) if known else JSONResponse(_NOT_FOUND, 404)
        self._note(request, answer.status_code)
        return answer

    def _plain(self, request: Request, content: Mapping[str, Any]) -> Response:
        refused = self._check_key(_keys(request))
        self._note(request, refused.status if refused else 200)
        return Played(answers.refuse(refused)) if refused else JSONResponse(content)

    def _note(self, request: Request, status: int) -> None:
        keys = _prints(_keys(request))
        self._record(Call(datetime.now(UTC), self._site.name, request.method, _path(request), keys, status))

    def _check_key(self, keys: Mapping[Header, str]) -> Refusal | None:
        read = [key for header, key in keys.items() if header in self._site.accepts]
        if not read:
            wanted = "Authorization" if Header.BEARER in self._site.accepts else "x-api-key"
            return refusals.no_key(self._site.shape, wanted)
        return None if self._site.key in read else refusals.unknown_key(self._site.shape)

    def _check_chat(self, body: Mapping[str, Any]) -> Refusal | None:
        if not isinstance(body.get("messages"), list) or not isinstance(body.get("model"), str):
            return refusals.bad_request(self._site.shape, "model and messages are required")
        if body["model"] not in self._site.models:
            return refusals.unknown_model(self._site.shape, body["model"])
        return None

    def _take_fault(self, turn: int) -> Fault | None:
        with self._lock:
            fault = self._fault
            if fault is None or turn < fault.turn:
                return None
            self._fault_seen += 1
            hit = self._fault_seen - fault.after
        return fault if hit > 0 and (fault.times is None or hit <= fault.times) else None


class Played(Response):
    """Puts an answer's moves on the wire, and stops when the client leaves."""

    def __init__(self, answer: answers.Answer) -> None:
        super().__init__()
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # ASGI's signature
        for move in self._answer:
            match move:
                case answers.Pause(seconds):
                    if seconds != 0 and await _left(receive, seconds):
                        return
                case answers.Cut():
                    return
                case answers.Head():
                    await send({"type": "http.response.start", "status": move.status, "headers": _headers(move)})
                case bytes():
                    await send({"type": "http.response.body", "body": move, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _left(receive: Receive, seconds: float | None) -> bool:
    """Whether the client left within so many seconds; None waits until it does."""
    try:
        async with asyncio.timeout(seconds):
            while (await receive())["type"] != "http.disconnect":
                pass
    except TimeoutError:
        return False
    return True


def _headers(head: answers.Head) -> list[tuple[bytes, bytes]]:
    headers = [(b"content-type", head.media_type.encode()), (b"request-id", b"req_rehearsal")]
    if head.retry_after_s is not None:
        headers.append((b"retry-after", str(head.retry_after_s).encode()))
    return headers


def _status(refused: Refusal | None, fault: Fault | None) -> int | None:
    if refused:
        return refused.status
    return None if fault and fault.kind is FaultKind.HANG else 200


def _keys(request: Request) -> dict[Header, str]:
    keys = {}
    scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and bearer:
        keys[Header.BEARER] = bearer
    if request.headers.get("x-api-key"):
        keys[Header.X_API_KEY] = request.headers["x-api-key"]
    return keys


def _prints(keys: Mapping[Header, str]) -> dict[Header, str]:
    return {header: fingerprint(key) for header, key in keys.items()}


def _path(request: Request) -> str:
    return "/" + request.url.path.lstrip("/").partition("/")[2]


async def _body(request: Request) -> Mapping[str, Any]:
    """The request's JSON object; anything else is as good as an empty one."""
    try:
        body = json.loads(await request.body())
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
