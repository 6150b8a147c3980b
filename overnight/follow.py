"""Follows every run of one host over one channel, through any number of broken connections.

How far we are is the size of our own copy of a log, nothing else: there is no
second number that could disagree after a crash.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from overnight import sampler
from overnight.events import Exited, Heartbeat, Killed, Lost, RunEvent, Sampled, Started
from overnight.failures import RULES, Evidence, Failure, FailureKind, HostError, Retry, fail
from overnight.frames import Frames
from overnight.hosts.protocol import Channel
from overnight.remote import Remote
from overnight.runcopy import STREAMS, RunCopy, Stream
from overnight.sample import read_sample

__all__ = ["Follower", "LinkState", "RunCopy"]

SILENCE_S = 13.0  # the follower beats every 5 s: two beats missed and 3 s for the way
REDIAL_S = 8.0
REFUSED_S = 60.0  # OpenSSH 9.8 locks out who keeps knocking with a wrong key
_JITTER = random.SystemRandom()  # not the shared one, whose state a program may have set and rely on


@dataclass(frozen=True)
class LinkState:
    """Whether the host is being heard, and if not, why. Says nothing about the runs on it."""

    up: bool
    failure: Failure | None = None


class _Watched:
    """One run being followed: its copy, its sink, and what was told already."""

    def __init__(self, run_id: str, key: int, copy: RunCopy, sink: Callable[[RunEvent], None]) -> None:
        self.run_id, self.key, self.copy, self.sink = run_id, key, copy, sink
        self.started = False
        self.cancelled = False

    def take(self, stream: Stream, offset: int, data: bytes) -> None:
        if offset != self.copy.expects(stream):
            raise OSError(f"{stream} of {self.run_id} came from {offset}, expected {self.copy.expects(stream)}")
        self._tell(self.copy.append(stream, data))

    def skip(self, stream: Stream, offset: int, until: int) -> None:
        if offset != self.copy.expects(stream):
            raise OSError(f"{stream} of {self.run_id} is gone from {offset}, expected {self.copy.expects(stream)}")
        self.copy.skip(stream, until)

    def vital(self, frame: dict[str, Any]) -> None:
        started, beat = frame["started"], frame["hb"]
        if started is not None and not self.started:
            self.started = True
            self._tell(Started(started["pid"], started["boot_s"]))
        if frame["k"] == "s" and frame["state"] == "running" and beat is not None:
            fields = ("age_s", "cpu_s", "processes", "quiet_s", "work_changed_s")
            self._tell(Heartbeat(**{name: beat[name] for name in fields}))

    def sampled(self, frame: dict[str, Any]) -> None:
        frame = self.copy.masked(frame)
        sample = frame.get("sample")
        self._tell(Sampled(None if sample is None else read_sample(sample), frame.get("error", "")))

    def end(self, frame: dict[str, Any]) -> None:
        self.vital(frame)
        for stream in STREAMS:
            self._tell(self.copy.flush(stream))
        self._tell(_ending(frame))

    def _tell(self, event: RunEvent | None) -> None:
        if event is not None:
            self.sink(event)


class Follower:
    """One thread and one channel for all runs of a host.

    Redials for ever until closed; after each break it asks for every run from
    where its copy ends, so no byte is lost and none comes twice. A run whose
    supervisor died is ended, since nobody would enforce its limits or record
    its end.

    Args:
        remote: The host.
        on_link: Told when the host is heard again or no more. Called, like every
            sink, from the follower's thread: it must return soon and not raise.
    """

    def __init__(self, remote: Remote, on_link: Callable[[LinkState], None] | None = None) -> None:
        self._remote = remote
        self._on_link = on_link or (lambda _state: None)
        self._lock = threading.RLock()  # guards the table and the order of what is sent
        self._watched: dict[str, _Watched] = {}
        self._channel: Channel | None = None
        self._keys = 0
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._live, name=f"follow {remote.host.name}", daemon=True)
        self._thread.start()

    def watch(self, run_id: str, copy: RunCopy, sink: Callable[[RunEvent], None]) -> None:
        """Tell `sink` everything about a run from the end of `copy` on.

        Bytes the copy already has are not told again: read them from it first.
        Events are Started once, Output, Heartbeat, then exactly one of Exited,
        Killed, Lost, after which the run is no longer watched.
        """
        with self._lock:
            if run_id in self._watched:
                raise ValueError(f"{run_id} is watched already")
            self._keys += 1
            watched = self._watched[run_id] = _Watched(run_id, self._keys, copy, sink)
            self._subscribe(watched)

    def unwatch(self, run_id: str) -> None:
        """Stop telling; once this returns the sink is called no more. The run goes on."""
        with self._lock:
            if self._watched.pop(run_id, None) is not None:
                self._send({"c": "unsub", "r": run_id})

    def cancel(self, run_id: str) -> None:
        """Ask the host to end a watched run; asked again after every broken connection until it has ended.

        Returns at once; the sink gets Killed when it is done. A run that has ended is left alone.
        """
        with self._lock:
            watched = self._watched.get(run_id)
            if watched is not None:
                watched.cancelled = True
                self._send({"c": "signal", "r": run_id})

    def sample(self, run_id: str, seconds: float = 1.0) -> None:
        """Ask the host to look twice, `seconds` apart, at what a watched run is doing.

        Returns at once; the sink gets one Sampled a moment after. None comes when the
        run has ended or the connection breaks meanwhile: ask again. Two who ask at
        the same time get one answer.
        """
        with self._lock:
            watched = self._watched.get(run_id)
            if watched is not None:
                command = self._remote.subscription(run_id, watched.key, {})
                self._send({**command, "c": "sample", "seconds": seconds, "code": sampler.code()})

    def close(self) -> None:
        """Stop following. Runs go on. Do not call it from a sink."""
        self._closed.set()
        with self._lock:
            if self._channel is not None:
                self._channel.close()
        self._thread.join(SILENCE_S)

    def _live(self) -> None:
        tries = 0
        while not self._closed.is_set():
            try:
                self._open()
                tries = 0
                self._listen()
            except TimeoutError:
                self._remote.host.drop()  # nothing is heard on this connection any more, by nobody
                failure = self._fault(f"nothing was heard for {SILENCE_S:.0f} s")
            except HostError as error:
                failure = error.failure
            except OSError as error:
                failure = self._fault(f"the copy on this machine cannot go on: {error}")
            finally:
                self._shut()
            if self._closed.is_set():
                return
            self._on_link(LinkState(False, failure))
            self._closed.wait(_pause_s(failure, tries))
            tries += 1

    def _open(self) -> None:
        channel = self._remote.follow()
        with self._lock:
            self._channel = channel
            for watched in self._watched.values():
                watched.copy.rewind()
                self._subscribe(watched)
        self._on_link(LinkState(True))

    def _shut(self) -> None:
        with self._lock:
            channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def _listen(self) -> None:
        """Handle frames until the channel ends, which raises."""
        with self._lock:
            channel = self._channel
        if channel is None:
            return
        frames = Frames(channel, SILENCE_S)
        while not self._closed.is_set():
            frame, data = frames.next()
            if frame["k"] == "h":
                with self._lock:
                    self._send({"c": "ping", "safe": self._safe()})
            else:
                self._handle(frame, data)

    def _safe(self) -> list[dict[str, Any]]:
        """What the host may give back the room of: it is on our own disk, and would survive us."""
        told = [(watched.run_id, watched.copy.safe()) for watched in self._watched.values()]
        return [{"r": run_id, "out": safe["out"], "err": safe["err"]} for run_id, safe in told if safe is not None]

    def _handle(self, frame: dict[str, Any], data: bytes) -> None:
        run_id = frame["r"]
        with self._lock:  # held while the sink is called: once `unwatch` has returned, nothing more is delivered
            watched = self._watched.get(run_id)
            if watched is None or watched.key != frame["i"]:
                return  # still under way when we stopped watching
            if frame["k"] == "d":
                watched.take(frame["s"], frame["o"], data)
            elif frame["k"] == "gone":
                watched.skip(frame["s"], frame["o"], frame["from"])
            elif frame["k"] == "sample":
                watched.sampled(frame)
            elif frame["k"] == "end":
                watched.end(frame)
                self._watched.pop(run_id, None)
            else:
                watched.vital(frame)
                if frame["state"] == "orphaned":
                    self._send({"c": "signal", "r": run_id})

    def _subscribe(self, watched: _Watched) -> None:
        offsets = {stream: watched.copy.offset(stream) for stream in STREAMS}
        self._send(self._remote.subscription(watched.run_id, watched.key, offsets))
        if watched.cancelled:
            self._send({"c": "signal", "r": watched.run_id})

    def _send(self, command: dict[str, Any]) -> None:
        if self._channel is not None:
            with suppress(HostError):  # the thread that listens meets the same, and everything is sent again
                self._channel.send(json.dumps(command).encode() + b"\n")

    def _fault(self, seen: str) -> Failure:
        evidence = Evidence(source="host", seen=seen)
        return fail(FailureKind.HOST_UNREACHABLE, evidence, names={"host": self._remote.host.name})


def _pause_s(failure: Failure, tries: int) -> float:
    if RULES[failure.kind].retry is Retry.NEVER:
        return REFUSED_S
    return _JITTER.uniform(0, min(REDIAL_S, 0.25 * 2 ** min(tries, 10)))


def _ending(frame: dict[str, Any]) -> RunEvent:
    record = frame["exit"]
    if record is None:
        return Lost(frame["why"])
    code, signal, seconds = record["code"], record["signal"], record["seconds"]
    if record["reason"] != "exited":
        return Killed(record["reason"], seconds, code, signal)
    return Exited(
        code,
        signal,
        seconds,
        max_rss_bytes=record["max_rss_bytes"],
        oom_kills=record["oom_kills"],
        oom_kills_own=record["oom_kills_own"],
        survivors=record["survivors"],
        exec_error=record["exec_error"],
        disk_free_bytes=record["disk_free_bytes"],
    )
