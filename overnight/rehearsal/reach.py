"""The way from each host of a batch to the emulated provider here: nothing, or a reverse forward."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from overnight.failures import Evidence, FailureKind, HostError, fail
from overnight.rehearsal.staged import BESIDE
from overnight.remote import Remote
from overnight.spec import HostSpec
from overnight.station import make_host
from overnight.sweep import Found

Answer = Literal["ours", "taken", "free"]
_ANSWERS: Mapping[str, Answer] = {"ours": "ours", "taken": "taken", "free": "free"}
HELLO = "/api/hello"
"""What a site of the emulated provider answers without a key."""
_ASK_S = 40.0
# runs on the host; a web server that answers every path with a page of its own is not ours
_ASK = """
import http.client, json, sys
caller = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=15)
try:
    caller.request("GET", sys.argv[2])
    answer = caller.getresponse()
    ours = answer.status == 200 and json.loads(answer.read(1000)) == {"message": "hello"}
    print("ours" if ours else "taken")
except ConnectionRefusedError:
    print("free")
except (OSError, ValueError, http.client.HTTPException):
    print("taken")
"""


# in one go, since what runs commands there goes with it; another rehearsal may still be in the folder above
_CLEAN = 'rm -rf -- "$1" && { rmdir "$2" 2> /dev/null || :; }'


class PortTakenError(Exception):
    """The port serves somebody else on a host; another one may be free."""


@dataclass(frozen=True)
class Guest:
    """A host of the batch as a rehearsal uses it: a folder that is its own, and a way back to here."""

    name: str
    spec: HostSpec
    remote: Remote

    def ask(self, port: int, site: str) -> Answer:
        """What is at a port of its loopback: the site of ours, somebody else, or nobody.

        Raises:
            HostError: it cannot be asked.
        """
        argv = [self.spec.python, "-I", "-S", "-c", _ASK, str(port), f"/{site}{HELLO}"]
        try:
            done = self.remote.execute(argv, timeout_s=_ASK_S)
        except TimeoutError:
            return "taken"
        answer = _ANSWERS.get(done.out.decode("ascii", "replace").strip())
        if answer is None:
            raise self.unfit(f"{self.spec.python} could not look at port {port}: {_words(done.err)}")
        return answer

    @contextmanager
    def reached(self, port: int, to: int, site: str) -> Iterator[str]:
        """While it lasts, `127.0.0.1:port` of the host is the emulated provider, which is at `to` here; says how.

        A host that is this very machine, by whatever name, has it there already.

        Args:
            site: One that no other server knows; asked for without a key.

        Raises:
            PortTakenError: by somebody else.
            HostError: the host is not reached, or does not forward.
        """
        found = self.ask(port, site)
        if found == "taken":
            raise PortTakenError(f"{self.name}:{port}")
        if found == "ours":
            yield "the same machine"
            return
        with self.remote.host.forward(port, to):
            if self.ask(port, site) != "ours":
                raise self.unfit(f"sshd forwards port {port}, and the emulated provider is not behind it")
            yield f"reverse forward of port {port}"

    def clean(self) -> str:
        """Remove the rehearsal's folder there; why it stays, empty when it is gone.

        Raises:
            HostError: it is not known whether it is gone.
        """
        root = self.remote.install().root
        parent, _, mark = root.rpartition("/")
        if not parent.endswith(BESIDE) or not mark:
            raise AssertionError(f"{root} is no folder of a rehearsal")
        found = [Found(**run) for run in self.remote.inventory()["runs"]]
        living = [each.run_id for each in found if each.lives]
        if living:
            return f"{', '.join(living)} still runs there"
        done = self.remote.execute(["/bin/sh", "-c", _CLEAN, "sh", root, parent])
        return "" if done.code == 0 else _words(done.err)

    def unfit(self, seen: str) -> HostError:
        found = Evidence(source="host", seen=seen, where=self.name)
        return HostError(fail(FailureKind.HOST_UNFIT, found, names={"host": self.name}))


def guest(name: str, spec: HostSpec) -> Guest:
    """A host by its spec, whose `directory` is the rehearsal's. Nothing connects yet."""
    return Guest(name, spec, Remote(make_host(name, spec), spec.directory, spec.python))


def _words(said: bytes) -> str:
    return " ".join(said.decode("utf-8", "replace").split())[-300:] or "no words"
