"""A shell command with pipes that can be let go while it lives, as sshd lets go of the commands of a lost client."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import Process
from collections.abc import Mapping
from typing import Self


class Command:
    """A command in a session of its own. `asyncio`'s own pipes would kill it when they are closed."""

    def __init__(
        self,
        process: Process,
        stdin: asyncio.StreamWriter,
        stdout: tuple[asyncio.StreamReader, asyncio.BaseTransport],
        stderr: tuple[asyncio.StreamReader, asyncio.BaseTransport],
    ) -> None:
        self._process = process
        self.stdin = stdin
        self.stdout, self._out = stdout
        self.stderr, self._err = stderr

    @classmethod
    async def start(cls, line: str, env: Mapping[str, str], folder: str) -> Self:
        (theirs_in, ours_in), (ours_out, theirs_out), (ours_err, theirs_err) = os.pipe(), os.pipe(), os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                "/bin/sh",
                "-c",
                line,
                stdin=theirs_in,
                stdout=theirs_out,
                stderr=theirs_err,
                env=dict(env),
                cwd=folder,
                start_new_session=True,
            )
        finally:
            for descriptor in (theirs_in, theirs_out, theirs_err):
                os.close(descriptor)
        return cls(process, await _writer(ours_in), await _reader(ours_out), await _reader(ours_err))

    async def ended(self) -> int:
        """The exit code, or -N for signal N."""
        return await self._process.wait()

    def signal(self, name: str) -> None:
        """Send a signal to the command and what it started in its process group; a name unknown here is ignored."""
        number = signal.Signals.__members__.get(name)
        if number is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def let_go(self) -> None:
        """Close our ends of the pipes: end of input for the command, a broken pipe for what it still writes."""
        for end in (self.stdin, self._out, self._err):
            end.close()


async def _writer(descriptor: int) -> asyncio.StreamWriter:
    loop = asyncio.get_running_loop()
    protocol = asyncio.StreamReaderProtocol(asyncio.StreamReader())
    transport, _ = await loop.connect_write_pipe(lambda: protocol, os.fdopen(descriptor, "wb", buffering=0))
    return asyncio.StreamWriter(transport, protocol, None, loop)


async def _reader(descriptor: int) -> tuple[asyncio.StreamReader, asyncio.BaseTransport]:
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", buffering=0)
    )
    return reader, transport
