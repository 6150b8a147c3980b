"""Providers on loopback that speak Anthropic's Messages and OpenAI's Responses and chat completions, well or badly.

One server holds many sites, `http://127.0.0.1:PORT/<site>`. Faults hit chat
requests alone: a site whose chat is broken still lists its models, as real
ones do, and a key that is not right is refused before any fault.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Sequence
from contextlib import nullcontext
from types import TracebackType
from typing import Self

import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from overnight.rehearsal.certificate import Flaw, certificates_in, self_signed
from overnight.rehearsal.desk import Desk
from overnight.rehearsal.faults import Fault
from overnight.rehearsal.loop import LoopThread
from overnight.rehearsal.model import Tape
from overnight.rehearsal.site import Call, Site


class EmulatedProvider:
    """The server, running while its `with` block does. It stops within two seconds, whatever clients wait for.

    Args:
        sites: Their names must differ.
        tapes: What the model does, for every site.
        port: 0 for any free one. One in use is an OSError on entry.
        tls: Serve https alone, with a certificate of its own making that no client trusts
            unless it is given `certificate` (PEM, empty before entry and without TLS). With a Flaw
            not even then.
    """

    def __init__(
        self, sites: Sequence[Site], tapes: Sequence[Tape] = (), port: int = 0, *, tls: bool | Flaw = False
    ) -> None:
        self._tapes = tuple(tapes)
        self._port = port
        self._tls = tls
        self.certificate = ""
        self._lock = threading.Lock()
        self._calls: list[Call] = []
        self._desks: dict[str, Desk] = {}
        self._calls_of: dict[str, list[Call]] = {}
        for site in sites:
            self._open(site)

    def __enter__(self) -> Self:
        listener = _listener(self._port)
        self._port = listener.getsockname()[1]
        self._loop = LoopThread("emulated-provider")
        self._loop.call(self._start(listener))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call(self._stop())
        self._loop.stop()

    def url(self, site: str) -> str:
        """The base URL of a site, without `/v1`."""
        if site not in self._desks:
            raise KeyError(site)
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}/{site}"

    def add_site(self, site: Site) -> str:
        """Serve one more site from now on, and return its URL; in place of the one with its name, if there is one."""
        self._open(site)
        return self.url(site.name)

    @property
    def calls(self) -> list[Call]:
        """Every request so far, oldest first."""
        with self._lock:
            return list(self._calls)

    def calls_of(self, site: str) -> list[Call]:
        """Every request to this site so far, oldest first; its cost does not grow with the other sites."""
        with self._lock:
            return list(self._calls_of[site])

    def set_fault(self, site: str, fault: Fault | None) -> None:
        """From the next request on `site` fails in this way, or is well again with None."""
        self._desks[site].set_fault(fault)

    def _record(self, call: Call) -> None:
        with self._lock:
            self._calls.append(call)
            self._calls_of[call.site].append(call)

    def _open(self, site: Site) -> None:
        with self._lock:
            self._calls_of.setdefault(site.name, [])
            self._desks[site.name] = Desk(site, self._tapes, self._record)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        desk = self._desks.get(scope["path"].split("/")[1])
        await (desk.app if desk else PlainTextResponse("no such site", 404))(scope, receive, send)

    async def _start(self, listener: socket.socket) -> None:
        flaw = self._tls if isinstance(self._tls, Flaw) else None
        with self_signed(flaw) if self._tls else nullcontext() as chain:
            config = uvicorn.Config(
                self._serve,
                interface="asgi3",  # which it cannot see of a method
                http="h11",
                ws="none",
                loop="asyncio",
                lifespan="off",
                access_log=False,
                log_config=None,
                log_level="critical",  # to uvicorn an answer cut on purpose is an error worth a log line
                timeout_graceful_shutdown=1,
                ssl_certfile=chain,
            )
            config.load()  # reads the certificate while its file is there
            self.certificate = certificates_in(chain) if chain else ""
        self._server = _Server(config)
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]))

    async def _stop(self) -> None:
        self._server.should_exit = True
        await self._serving


class _Server(uvicorn.Server):
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Hang up first: an answer that pauses for ever ends when its client leaves, and only then."""
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await super().shutdown(sockets)


def _listener(port: int) -> socket.socket:
    # asyncio sets TCP_NODELAY only where the protocol is spelled out; without it each answer takes 44 ms
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()  # from here on a client waits rather than being refused
    except OSError:
        listener.close()
        raise
    return listener
