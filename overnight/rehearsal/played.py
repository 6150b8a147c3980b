"""An answer's moves as a response of the server."""

from __future__ import annotations

import asyncio

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from overnight.rehearsal import answers


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
