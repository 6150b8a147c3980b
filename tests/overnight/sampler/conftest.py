"""A run that can be looked at, through a follower as in a real night."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from overnight.events import Sampled, Started
from overnight.follow import Follower
from overnight.remote import Remote, StartOrder
from overnight.sample import Process, Sample, Socket
from tests.overnight.following import Watching


class Run:
    """A running run of the follower that can be looked at."""

    def __init__(self, remote: Remote, follower: Follower, folder: Path) -> None:
        self.remote, self.follower, self.folder = remote, follower, folder
        self.watching: Watching | None = None

    def start(self, order: StartOrder, *secrets: bytes) -> Run:
        self.answer = self.remote.start(order, secrets)
        self.watching = Watching(self.follower, order.run_id, self.folder, secrets)
        self.watching.until(lambda event: isinstance(event, Started))
        return self

    def end(self) -> None:
        if self.watching is not None:
            self.follower.cancel("r1")
            self.watching.ending()

    def ask(self, seconds: float = 0.1) -> Sampled:
        assert self.watching is not None
        self.follower.sample("r1", seconds)
        event = self.watching.until(lambda event: isinstance(event, Sampled))
        assert isinstance(event, Sampled)
        return event

    def seen(self, true: Callable[[Sample], object], tries: int = 60) -> Sample:
        """The first sample of which this is true: what is to be seen takes a moment to come about."""
        for _ in range(tries):
            event = self.ask()
            assert event.sample is not None, event.error
            if true(event.sample):
                return event.sample
            time.sleep(0.1)
        raise AssertionError(f"never seen; last: {event.sample}")

    def child(self, command: str, true: Callable[[Process], object] = lambda process: True) -> Process:
        def found(sample: Sample) -> list[Process]:
            return [each for each in sample.processes if each.command.startswith(command) and true(each)]

        return found(self.seen(found))[0]

    def connection(self, true: Callable[[Socket], object]) -> Socket:
        sample = self.seen(lambda sample: sample.sockets and true(sample.sockets[0]))
        assert sample.sockets[0].pid == sample.processes[0].pid
        return sample.sockets[0]


@pytest.fixture
def run(remote: Remote, follower: Follower, tmp_path: Path) -> Iterator[Run]:
    run = Run(remote, follower, tmp_path / "copies")
    yield run
    run.end()
