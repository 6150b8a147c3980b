"""A TCP link on loopback that can be cut, frozen or refused while real bytes run through it."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from overnight.rehearsal.loop import LoopThread

_CHUNK_BYTES = 256 * 1024


class Link:
    """Forwards connections to `127.0.0.1:target_port` while its `with` block runs. Every method is for any thread.

    Args:
        target_port: Where the real server listens, on loopback.
        port: Where clients connect; 0 for any free one. One in use is an OSError on entry.
    """

    address = "127.0.0.1"

    def __init__(self, target_port: int, port: int = 0) -> None:
        self._target_port = target_port
        self.port = port
        self._writers: set[asyncio.StreamWriter] = set()
        self._carrying: set[asyncio.Task[None]] = set()
        self._left_bytes: int | None = None
        self._delay_s = 0.0

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            self._loop = LoopThread("link")
            opened.callback(self._loop.stop)
            self._loop.call(self._open())
            opened.callback(lambda: self._loop.call(self._close()))
            self._opened = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()

    def cut(self) -> None:
        """End every connection now, whatever is under way. New ones are welcome."""
        self._loop.call(self._cut())

    def cut_after(self, count: int) -> None:
        """End every connection once exactly so many more bytes went to clients; happens once."""
        self._loop.call(self._set_left(count))

    def reset(self) -> None:
        """End every connection as a firewall does that has forgotten it: both sides get a reset, no end of stream."""
        self._loop.call(self._reset())

    def slow(self, delay_s: float) -> None:
        """From now on pass each piece on so much later, one after the other; 0 is the usual way."""
        self._loop.call(self._set_delay(delay_s))

    def freeze(self) -> None:
        """Take connections and bytes as far as buffers go, and pass nothing on until `thaw`. Loses nothing."""
        self._loop.call(self._set_frozen(True))

    def thaw(self) -> None:
        self._loop.call(self._set_frozen(False))

    def refuse(self, seconds: float | None = None) -> None:
        """Refuse new connections for so long, or until `accept`. Those that stand are not touched."""
        self._loop.call(self._refuse(seconds))

    def accept(self) -> None:
        self._loop.call(self._listen())

    async def _open(self) -> None:
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._server: asyncio.Server | None = None
        self._reopening: asyncio.Task[None] | None = None
        await self._listen()

    async def _close(self) -> None:
        await self._refuse(None)
        self._flowing.set()
        while self._carrying:
            await self._cut()
            await asyncio.wait(self._carrying, timeout=0.05)

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._welcome, self.address, self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        carrying = asyncio.create_task(self._carry(reader, writer))
        self._carrying.add(carrying)
        carrying.add_done_callback(self._carrying.discard)

    async def _refuse(self, seconds: float | None) -> None:
        if self._reopening is not None:
            self._reopening.cancel()
        if self._server is not None:
            self._server.close()
            self._server = None
        self._reopening = None if seconds is None else asyncio.create_task(self._reopen(seconds))

    async def _reopen(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self._listen()

    async def _cut(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _reset(self) -> None:
        for writer in list(self._writers):
            at_once = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
            writer.transport.abort()

    async def _set_delay(self, delay_s: float) -> None:
        self._delay_s = delay_s

    async def _set_left(self, count: int) -> None:
        self._left_bytes = count

    async def _set_frozen(self, frozen: bool) -> None:
        (self._flowing.clear if frozen else self._flowing.set)()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client's connection, until either side ends it."""
        self._writers.add(writer)
        try:
            await self._flowing.wait()
            target_reader, target_writer = await asyncio.open_connection(self.address, self._target_port)
        except OSError:  # nothing listens there: to the client that is a connection that ends at once
            self._drop(writer)
            return
        self._writers.add(target_writer)
        await asyncio.gather(
            self._pump(reader, target_writer, to_client=False), self._pump(target_reader, writer, to_client=True)
        )
        self._drop(writer)
        self._drop(target_writer)

    def _drop(self, writer: asyncio.StreamWriter) -> None:
        self._writers.discard(writer)
        writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, to_client: bool) -> None:
        """Forward until the source ends; the end is forwarded too. A broken connection ends both ways."""
        try:
            while data := await reader.read(_CHUNK_BYTES):
                await asyncio.sleep(self._delay_s)
                await self._flowing.wait()
                writer.write(self._allowed(data) if to_client else data)
                await writer.drain()
                if to_client and self._left_bytes == 0:
                    self._left_bytes = None
                    writer.close()
                    await writer.wait_closed()  # before the others are cut, so that the last byte allowed arrives
                    await self._cut()
            if writer.can_write_eof():
                writer.write_eof()
        except OSError:
            writer.transport.abort()

    def _allowed(self, data: bytes) -> bytes:
        if self._left_bytes is None:
            return data
        data = data[: self._left_bytes]
        self._left_bytes -= len(data)
        return data
