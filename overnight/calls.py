"""Calls of a host through one process that is there already.

A channel of its own costs each call a login of the user, with all that their
shell's files start, and an interpreter: where those files call pyenv, 40 runs
took 23 s so and 9 s without (`tests.bench.overhead`, 2026-11-29, 2 cores). It also
takes one of the ten sessions that sshd gives a connection (MaxSessions).
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from overnight.failures import Evidence, FailureKind, HostError, fail
from overnight.frames import Frames
from overnight.hosts.protocol import ERRORS_BYTES, Channel

SILENCE_S = 30.0  # a host beats every 5 s, and may be so busy that several beats come late
SEND_BYTES = 32_768
MORE_BYTES = 1_048_576  # half of what a host may send ahead (SERVE_WINDOW_BYTES): telling it wakes it, and sshd
AT_ONCE = 32


class Call:
    """One call, as the channel it would otherwise have. Waiting to read, it holds at most what the host may send."""

    def __init__(self, line: _Line, number: int) -> None:
        self._line = line
        self._number = number
        self._changed = threading.Condition()
        self._out, self._errors = deque[bytes](), bytearray()
        self._read_bytes = 0
        self._over = {"out": False, "err": False}
        self._code: int | None = None
        self._broken: HostError | None = None

    def send(self, data: bytes) -> None:
        for at in range(0, len(data), SEND_BYTES):
            self._line.say({"c": "in", "i": self._number}, data[at : at + SEND_BYTES])

    def close_input(self) -> None:
        self._line.say({"c": "eof", "i": self._number})

    def recv(self, limit: int, timeout_s: float | None) -> bytes:
        with self._changed:
            if not self._changed.wait_for(lambda: self._out or self._over["out"] or self._broken, timeout_s):
                raise TimeoutError("nothing was heard of the call")
            data = self._out.popleft() if self._out else b""
            if len(data) > limit:
                self._out.appendleft(data[limit:])
                data = data[:limit]
            if not data and not self._over["out"] and self._broken is not None:
                raise self._broken
        self._ask_for_more(len(data))
        return data

    def _ask_for_more(self, read_bytes: int) -> None:
        self._read_bytes += read_bytes
        if self._read_bytes >= MORE_BYTES:
            with suppress(HostError):  # whoever reads on meets the same
                self._line.say({"c": "more", "i": self._number, "bytes": self._read_bytes})
            self._read_bytes = 0

    def errors(self) -> bytes:
        with self._changed:
            self._changed.wait_for(lambda: self._over["err"] or self._broken, 0.5)
            return bytes(self._errors)

    def exit_code(self, timeout_s: float) -> int:
        with self._changed:
            self._changed.wait_for(lambda: self._code is not None or self._broken, timeout_s)
            if self._code is not None:
                return self._code
            raise self._broken or TimeoutError("the command still runs")

    def close(self) -> None:
        self._line.end(self._number)

    def take(self, kind: str, data: bytes) -> None:
        """What the host told of it: bytes of a stream, none at its end."""
        with self._changed:
            if not data:
                self._over[kind] = True
            elif kind == "out":
                self._out.append(data)
            else:
                self._errors += data
                del self._errors[:-ERRORS_BYTES]
            self._changed.notify_all()

    def ended(self, code: int) -> None:
        with self._changed:
            self._code = code
            self._changed.notify_all()

    def lost(self, error: HostError) -> None:
        """Nothing more will be heard of it."""
        with self._changed:
            self._broken = error
            self._changed.notify_all()


class Calls:
    """The calls of one host. Thread-safe; the process that answers them is started at the first, and again when lost.

    Args:
        dial: Starts it.
        name: The host's.
    """

    def __init__(self, dial: Callable[[], Channel], name: str) -> None:
        self._dial = dial
        self._name = name
        self._lock = threading.Lock()
        self._line: _Line | None = None

    def open(self, op: str, timeout_s: float) -> Channel:
        """Start a call; more than AT_ONCE are waited for, up to `timeout_s`.

        Raises:
            HostError: there is no way to the host, or no room.
        """
        line = self._whole_line()
        try:
            return line.open(op, timeout_s)
        except HostError:
            if not line.broken:
                raise
        return self._whole_line().open(op, timeout_s)  # it broke since it was last used

    def _whole_line(self) -> _Line:
        with self._lock:
            if self._line is None or self._line.broken:
                self._line = _Line(self._dial(), self._name)
            return self._line

    def close(self) -> None:
        with self._lock:
            if self._line is not None:
                self._line.close()


class _Line:
    """One process on the host, with the thread that hears it, and the calls it carries."""

    def __init__(self, channel: Channel, name: str) -> None:
        self._channel = channel
        self._name = name
        self._lock = threading.Lock()  # of the table
        self._mouth = threading.Lock()  # a head and its bytes go together
        self._room = threading.BoundedSemaphore(AT_ONCE)
        self._calls: dict[int, Call] = {}
        self._numbers = 0
        self._broken: HostError | None = None
        threading.Thread(target=self._listen, name=f"calls of {name}", daemon=True).start()

    @property
    def broken(self) -> bool:
        return self._broken is not None

    def open(self, op: str, timeout_s: float) -> Call:
        if not self._room.acquire(timeout=timeout_s):
            raise self._fault(f"{AT_ONCE} calls are under way, and none ended within {timeout_s:.0f} s")
        with self._lock:
            self._numbers += 1
            number = self._numbers
            call = self._calls[number] = Call(self, number)
            if self._broken is not None:
                call.lost(self._broken)
        try:
            self.say({"c": "call", "i": number, "op": op})
        except HostError as error:
            self.end(number)
            self._break(error)
            raise
        return call

    def say(self, head: dict[str, object], data: bytes = b"") -> None:
        with self._mouth:
            self._channel.send(json.dumps({**head, "n": len(data)}).encode() + b"\n" + data)

    def end(self, number: int) -> None:
        """Let go of a call, whatever became of it. Again changes nothing."""
        with self._lock:
            if self._calls.pop(number, None) is None:
                return
        self._room.release()
        with suppress(HostError):
            self.say({"c": "close", "i": number})

    def close(self) -> None:
        self._channel.close()

    def _listen(self) -> None:
        frames = Frames(self._channel, SILENCE_S)
        try:
            while True:
                frame, data = frames.next()
                if frame["k"] == "h":
                    self.say({"c": "ping"})
                    continue
                with self._lock:
                    call = self._calls.get(frame["i"])
                if call is not None and frame["k"] == "exit":
                    call.ended(frame["code"])
                elif call is not None:
                    call.take(frame["k"], data)
        except TimeoutError:
            self._break(self._fault(f"nothing was heard for {SILENCE_S:.0f} s"))
        except HostError as error:
            self._break(error)

    def _break(self, error: HostError) -> None:
        self._channel.close()
        with self._lock:
            self._broken = self._broken or error
            calls = list(self._calls.values())
        for call in calls:
            call.lost(error)

    def _fault(self, seen: str) -> HostError:
        evidence = Evidence(source="host", seen=seen, where=self._name)
        return HostError(fail(FailureKind.HOST_UNREACHABLE, evidence, names={"host": self._name}))
