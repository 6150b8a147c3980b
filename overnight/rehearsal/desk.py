"""Serves one site: checks each request as its provider would, answers it, and tells of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property, partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route, Router

from overnight.lockfile import Header
from overnight.rehearsal import answers, chat, messages, refusals, responses
from overnight.rehearsal.dialects import Why
from overnight.rehearsal.faults import Fault, FaultKind
from overnight.rehearsal.freecalls import FREE_CALLS, Account, FreeCall
from overnight.rehearsal.model import Tape, probe_nonce, reply, turn_of
from overnight.rehearsal.played import Played
from overnight.rehearsal.refusals import Refusal
from overnight.rehearsal.site import Call, Site, fingerprint


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

    @cached_property
    def app(self) -> Router:
        """What serves the site, at its path on the server."""
        calls = FREE_CALLS[self._site.shape]
        routes = [
            Route("/v1/messages", partial(self._chat, messages), methods=["POST"]),
            Route("/v1/responses", partial(self._chat, responses), methods=["POST"]),
            Route("/v1/chat/completions", partial(self._chat, chat), methods=["POST"]),
            Route("/v1/messages/count_tokens", self._count_tokens, methods=["POST"]),
            *(Route(call.path, partial(self._free, call), methods=["GET"]) for call in calls),
            Route("/v1/models", self._models, methods=["GET"]),
            Route("/{path:path}", self._elsewhere, methods=["GET", "POST"]),
        ]
        return Router([Mount(f"/{self._site.name}", routes=routes)])

    async def _chat(self, api: answers.Api, request: Request) -> Response:
        keys, body = _keys(request), api.read(await _body(request))
        turn, stream = turn_of(body), body.get("stream") is True
        refused = self._check_key(keys) or self._check_client(request) or self._check_body(body)
        is_probe = probe_nonce(body) is not None
        fault = None if refused else self._take_fault(turn, probing=is_probe or not body.get("tools"))
        now = datetime.now(UTC)
        if fault:
            refused = refusals.refusal(fault, self._site.shape, now, body["model"])
        elif refused is None:
            refused = self._check_account(body["model"])
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
                is_probe=is_probe,
                turn=turn,
                faulty=fault is not None,
            )
        )
        if refused:
            return Played(answers.refuse(api.framed(refused), fault.wait_s if fault else 0))
        model = self._site.answers_as or self._site.served(body["model"]) or body["model"]
        said = reply(body, self._tapes)
        said = replace(said, wait_s=said.wait_s + self._site.wait_s)
        speak = partial(answers.speak, said, model, turn, fault=fault, shape=self._site.shape, api=api)
        return Played(speak(stream=stream, usage=_asks_usage(body)))

    async def _count_tokens(self, request: Request) -> Response:
        body = await _body(request)
        refused = self._check_key(_keys(request)) or self._check_body(body) or self._check_model(body["model"])
        return self._plain(request, refused, {"input_tokens": len(await request.body()) // 4})

    async def _models(self, request: Request) -> Response:
        names = (*self._site.models, *self._site.outside_plan)
        data = [{"type": "model", "id": name, "display_name": name} for name in names]
        return self._plain(request, self._check_key(_keys(request)), {"data": data, "has_more": False})

    async def _free(self, call: FreeCall, request: Request) -> Response:
        why = self._why_refused_free(call, request)
        if why is None:
            return self._plain(request, None, call.good(Account(self._site.balance, self._site.used_percent)))
        if call.bad is not None and why is not Why.PLACE:
            return self._plain(request, None, call.bad(why))
        return self._plain(request, refusals.refuse(self._site.shape, why, wanted="Authorization"), {})

    def _why_refused_free(self, call: FreeCall, request: Request) -> Why | None:
        if not self._site.serves_here:
            return Why.PLACE
        if call.key == "none" or not self._site.needs_key:
            return None
        raw = request.headers.get("authorization", "") if call.key == "raw" else ""
        key = _keys(request).get(Header.BEARER) or raw
        return self._why_refused([key] if key else [])

    async def _elsewhere(self, request: Request) -> Response:
        """The start page and the greeting that clients warm up on need no key; nothing else is here."""
        path = _path(request)
        known = path in ("/", "/api/hello")
        refused = None if known else refusals.refuse_path(self._site.shape, request.method, path)
        return self._plain(request, refused, {"message": "hello"})

    def _plain(self, request: Request, refused: Refusal | None, content: Mapping[str, Any]) -> Response:
        self._note(request, refused.status if refused else 200)
        return Played(answers.refuse(refused)) if refused else JSONResponse(content)

    def _note(self, request: Request, status: int) -> None:
        keys = _prints(_keys(request))
        self._record(Call(datetime.now(UTC), self._site.name, request.method, _path(request), keys, status))

    def _check_key(self, keys: Mapping[Header, str]) -> Refusal | None:
        site = self._site
        if not site.serves_here:
            return refusals.refuse(site.shape, Why.PLACE)
        if not site.needs_key:
            return None
        why = self._why_refused([key for header, key in keys.items() if header in site.accepts])
        if site.refuses_both and len(keys) > 1:
            why = Why.UNKNOWN_KEY
        wanted = "Authorization" if Header.BEARER in site.accepts else "x-api-key"
        return refusals.refuse(site.shape, why, wanted=wanted) if why else None

    def _why_refused(self, read: Sequence[str]) -> Why | None:
        if not read:
            return Why.NO_KEY
        if self._site.key in read:
            return None
        return Why.KEY_ELSEWHERE if set(read) & set(self._site.keys_elsewhere) else Why.UNKNOWN_KEY

    def _check_client(self, request: Request) -> Refusal | None:
        clients = self._site.clients
        if not clients or request.headers.get("user-agent", "").startswith(clients):
            return None
        return refusals.refuse(self._site.shape, Why.CLIENT)

    def _check_body(self, body: Mapping[str, Any]) -> Refusal | None:
        if isinstance(body.get("messages"), list) and isinstance(body.get("model"), str):
            return None
        problem = "model and messages (or input) are required"
        return refusals.refuse(self._site.shape, Why.BAD_REQUEST, problem=problem)

    def _check_account(self, model: str) -> Refusal | None:
        refused = self._check_model(model)
        if refused:
            return refused
        if model in self._site.outside_plan:
            return refusals.refuse(self._site.shape, Why.OUTSIDE_PLAN, model=model)
        return None if self._site.balance else refusals.refuse(self._site.shape, Why.NO_BALANCE)

    def _check_model(self, model: str) -> Refusal | None:
        known = self._site.served(model) is not None
        return None if known else refusals.refuse(self._site.shape, Why.UNKNOWN_MODEL, model=model)

    def _take_fault(self, turn: int, *, probing: bool) -> Fault | None:
        with self._lock:
            fault = self._fault
            if fault is None or (probing and fault.spares_probes):
                return None
            if turn < fault.turn and not (fault.lasting and self._fault_seen):
                return None
            self._fault_seen += 1
            hit = self._fault_seen - fault.after
        return fault if hit > 0 and (fault.times is None or hit <= fault.times) else None


def _asks_usage(body: Mapping[str, Any]) -> bool:
    options = body.get("stream_options")
    return isinstance(options, Mapping) and options.get("include_usage") is True


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
