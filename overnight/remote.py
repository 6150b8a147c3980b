"""Our part on the host, from here: install it, start runs with it, run commands through it.

Every call speaks the same way: one line of JSON to the supervisor file,
and its answers after a line that names it, because login files of the host
may print whatever they like first. Most calls share one process (`calls`);
what is followed, and what is fed with much, has a channel of its own.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from overnight.calls import Calls
from overnight.failures import Evidence, FailureKind, HostError, fail
from overnight.hosts.protocol import Channel, Host
from overnight.order import Done, HostFacts, RunBounds, SecretSlot, StartAnswer, StartOrder

__all__ = ["Done", "HostFacts", "Remote", "RunBounds", "SecretSlot", "StartAnswer", "StartOrder"]

SOURCE = Path(__file__).with_name("supervisor.py")
INVENTORY = Path(__file__).with_name("inventory.py")
ANSWER_S = 30.0
NOISE_BYTES = 65536
_PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./-]+\Z")
_CANNOT_RUN = re.compile(rb"OVERNIGHT-EXEC-FAILED (.*)")
_K = FailureKind

# Runs on the host, read from standard input by a bare interpreter: no shell ever sees a quote of it.
_INSTALL = """
import hashlib, json, os, sys
source = {source!r}
digest = hashlib.sha256(source).hexdigest()
folder = os.path.join(os.path.expanduser("~"), {root!r}, "lib")
path = os.path.join(folder, "supervisor-" + digest[:16] + ".py")
answer = {{"version": list(sys.version_info[:3]), "path": path}}
try:
    os.makedirs(folder, 0o700, exist_ok=True)
    if not os.path.exists(path) or open(path, "rb").read() != source:
        new = path + "." + str(os.getpid())
        with open(new, "wb") as file:
            file.write(source)
            file.flush()
            os.fsync(file.fileno())
        os.rename(new, path)
    answer["digest"] = hashlib.sha256(open(path, "rb").read()).hexdigest()
except OSError as error:
    answer["error"] = str(error)
print("\\nOVERNIGHT-INSTALL 1\\n" + json.dumps(answer))
"""


class Remote:
    """The supervisor file on one host. Safe to use from several threads.

    Args:
        host: The way to it.
        root: Where everything of ours lives, absolute or below the user's home.
        python: Python 3.8 or newer there.
    """

    def __init__(self, host: Host, root: str = ".overnight", python: str = "python3") -> None:
        self.host = host
        self._root = root
        self._python = python
        self._installing = threading.Lock()
        self._installed: tuple[HostFacts, str] | None = None
        self._path = ""
        self._calls = Calls(lambda: self._speak(self.host.open(self._command("serve")), "serve"), host.name)

    def install(self) -> HostFacts:
        """Put the supervisor there, unless this very one is there already. Asks the host once, then remembers.

        Raises:
            HostError: the host cannot be reached, or lacks Python, room or rights.
        """
        return self._ready()[0]

    @property
    def supervisor(self) -> str:
        """Path of its file there; as `install`."""
        return self._ready()[1]

    def find(self, names: Sequence[str], path: Sequence[str]) -> dict[str, str | None]:
        """Absolute path of each command in the given folders of the host, or None."""
        found: dict[str, str | None] = self._ask("facts", self._facts_order(names, path))["found"]
        return found

    def start(self, order: StartOrder, secrets: Sequence[bytes] = ()) -> StartAnswer:
        """Start the run. Repeating it is safe and never starts a second process.

        Args:
            secrets: One for each of `order.secrets`, in their order.

        Raises:
            HostError: it is not known whether the run was started (repeat it), or
                the host could not, and then nothing of it is left.
        """
        answer = self._ask("start", order.record(self._root, secrets), b"".join(secrets))
        if answer["answer"] == "died":
            raise self._lost("the supervisor died at its start, and the agent may live")
        if answer["answer"] == "error":
            raise self._unfit(f"the run could not be started: {answer['what']}")
        return StartAnswer(answer["answer"], answer["run_dir"], answer.get("pid"), answer.get("state"))

    def execute(
        self,
        argv: Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        input: bytes = b"",  # the word of subprocess.run
        timeout_s: float = 60.0,
        max_output_bytes: int = 8_000_000,
    ) -> Done:
        """Run a command to its end. `env` is its whole environment; PATH and LANG only when None.

        Raises:
            TimeoutError: it did not end in time; the host ends it by itself.
            HostError: the connection failed, and what became of it is not known.
        """
        deadline = time.monotonic() + timeout_s
        channel = self._exec(argv, cwd, env, timeout_s)
        try:
            sender = threading.Thread(target=_feed, args=(channel, input), daemon=True)
            sender.start()
            out = bytearray()
            truncated = False
            while data := channel.recv(65536, max(0.0, deadline - time.monotonic())):
                truncated = truncated or len(out) + len(data) > max_output_bytes
                out += data[: max_output_bytes - len(out)]
            code = channel.exit_code(max(0.0, deadline - time.monotonic()))
            err = channel.errors()
        finally:
            channel.close()
        failed = _CANNOT_RUN.search(err) if code == 127 else None
        reason = failed[1].decode("utf-8", "replace") if failed else None
        return Done(code, bytes(out), err, truncated, reason)

    def pipe(
        self,
        argv: Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        time_s: float | None = None,
        fed: bool = False,
    ) -> Channel:
        """A command whose standard input and output are the channel; close it. The host ends it after `time_s`.

        Args:
            fed: It is sent so much that the host must be able to say stop.
        """
        return self._exec(argv, cwd, env, time_s, alone=fed)

    def follow(self) -> Channel:
        """A fresh channel to a follower, for `Follower`."""
        return self._call("follow", b"", alone=True)

    def subscription(self, run_id: str, key: int, offsets: Mapping[Any, int]) -> dict[str, Any]:
        """The command that asks a follower for a run."""
        return {"c": "sub", "root": self._root, "r": run_id, "i": key, **offsets}

    def inventory(
        self, remove: Sequence[str] = (), spare: Sequence[str] = (), *, traced: bool = False
    ) -> dict[str, Any]:
        """Every run directory there, as `inventory.py` tells it; with `remove`, what became of removing these.

        Args:
            spare: To remove, too: what it told to be needed by no run.
            traced: Of each run also task, branch and commits; costs a call of git for each.

        Raises:
            HostError: the connection failed; what was to be removed may be gone or not.
        """
        what = {"remove": list(remove), "spare": list(spare), "traced": traced}
        order = {"supervisor": self.supervisor, "root": self._root, **what}
        return self.script(INVENTORY, order)

    def script(self, path: Path, order: Mapping[str, Any], timeout_s: float = ANSWER_S) -> dict[str, Any]:
        """Run a file of ours there, sent as text and left nowhere, in what environment sshd gives.

        Args:
            path: Its `main(order)` says `OVERNIGHT-NAME 1`, NAME being the file's, then one line of JSON.
            order: Plain data. It travels on standard input alone, so it may hold a key.
            timeout_s: For the answer; each wait for more of it is bounded alone.

        Raises:
            HostError: the connection failed, or no answer came; what the script did is not known.
        """
        channel = self.host.open(f"exec {self._python} -I -S -")
        channel.send(f"{path.read_text(encoding='utf-8')}\n\nmain({dict(order)!r})\n".encode())
        channel.close_input()
        return self._answer(self._past_noise(channel, path.stem.upper().replace("_", "-")), timeout_s)

    def close(self) -> None:
        """Close the connection for good. Runs go on."""
        self._calls.close()
        self.host.close()

    def _exec(
        self,
        argv: Sequence[str],
        cwd: str | None,
        env: Mapping[str, str] | None,
        time_s: float | None,
        *,
        alone: bool = False,
    ) -> Channel:
        order = {"argv": list(argv), "cwd": cwd, "env": None if env is None else dict(env), "time_s": time_s}
        return self._call("exec", _line(order), alone=alone)

    def _facts_order(self, names: Sequence[str] = (), path: Sequence[str] = ()) -> dict[str, Any]:
        return {"root": self._root, "find": list(names), "path": list(path)}

    def _ready(self) -> tuple[HostFacts, str]:
        with self._installing:
            if self._installed is None:
                self._path = self._upload()
                answer = self._answer(self._open("facts", _line(self._facts_order())))
                answer.pop("found")
                self._installed = HostFacts(**answer), self._path
            return self._installed

    def _upload(self) -> str:
        source = SOURCE.read_bytes()
        channel = self.host.open(f"exec {self._python} -I -S -")
        channel.send(_INSTALL.format(source=source, root=self._root).encode())
        channel.close_input()
        answer = self._answer(self._past_noise(channel, "INSTALL"))
        if answer["version"] < [3, 8]:
            raise self._unfit(f"Python 3.8 or newer is needed, {self._python} is {answer['version']}")
        if "error" in answer:
            raise self._unfit(f"the supervisor could not be written: {answer['error']}")
        if answer["digest"] != hashlib.sha256(source).hexdigest():
            raise self._unfit(f"{answer['path']} does not hold what was written to it")
        if not _PLAIN.match(answer["path"]):
            raise self._unfit(f"the path {answer['path']!r} would need quoting; choose another root")
        return str(answer["path"])

    def _ask(self, op: str, order: Mapping[str, Any], secrets: bytes = b"") -> dict[str, Any]:
        return self._answer(self._call(op, _line(order) + secrets))

    def _call(self, op: str, first: bytes, *, alone: bool = False) -> Channel:
        try:
            self._ready()
            return self._open(op, first, alone=alone)
        except HostError as error:
            if error.failure.kind is _K.HOST_UNFIT:
                self._installed = None  # somebody may have cleaned up there; the next call installs anew
            raise

    def _open(self, op: str, first: bytes, *, alone: bool = False) -> Channel:
        channel = self.host.open(self._command(op)) if alone else self._calls.open(op, ANSWER_S)
        return self._speak(channel, op, first)

    def _command(self, op: str) -> str:
        return f"exec {self._python} -I -S {self._path} {op}"

    def _speak(self, channel: Channel, op: str, first: bytes = b"") -> Channel:
        channel.send(first)
        return self._past_noise(channel, op.upper())

    def _past_noise(self, channel: Channel, word: str) -> Channel:
        """The channel from the line on that says our program speaks."""
        magic = f"\nOVERNIGHT-{word} 1\n".encode()
        seen = b""
        try:
            while magic not in seen:
                data = channel.recv(NOISE_BYTES, ANSWER_S)
                seen += data
                if not data or len(seen) > NOISE_BYTES * 2:
                    raise self._mute(channel, seen)
        except TimeoutError as error:
            channel.close()
            raise self._lost(f"no answer within {ANSWER_S:.0f} s") from error
        except HostError:
            channel.close()
            raise
        return _Spoken(channel, seen.partition(magic)[2])

    def _answer(self, channel: Channel, timeout_s: float = ANSWER_S) -> dict[str, Any]:
        """The one line of JSON that ends a short call."""
        try:
            said = b"".join(iter(lambda: channel.recv(65536, timeout_s), b""))
            answer: dict[str, Any] = json.loads(said)
        except TimeoutError as error:
            raise self._lost(f"no answer within {timeout_s:.0f} s") from error
        except ValueError as error:
            raise self._mute(channel, said) from error
        finally:
            channel.close()
        return answer

    def _mute(self, channel: Channel, seen: bytes) -> HostError:
        try:
            code: int | str = channel.exit_code(5)
        except TimeoutError:
            code = "none yet"
        words = (channel.errors() or seen).decode("utf-8", "replace").split()
        text = " ".join(words)[-400:] or "no words"
        return self._unfit(f"{self._python} did not run our supervisor: exit code {code}: {text}")

    def _unfit(self, seen: str) -> HostError:
        return self._failure(_K.HOST_UNFIT, seen)

    def _lost(self, seen: str) -> HostError:
        return self._failure(_K.HOST_UNREACHABLE, seen)

    def _failure(self, kind: FailureKind, seen: str) -> HostError:
        return HostError(fail(kind, Evidence(source="host", seen=seen), names={"host": self.host.name}))


class _Spoken:
    """A channel whose first bytes were read already."""

    def __init__(self, channel: Channel, first: bytes) -> None:
        self._first = first
        self._channel = channel
        self.send = channel.send
        self.close_input = channel.close_input
        self.errors = channel.errors
        self.exit_code = channel.exit_code
        self.close = channel.close

    def recv(self, limit: int, timeout_s: float | None) -> bytes:
        if self._first:
            data, self._first = self._first[:limit], self._first[limit:]
            return data
        return self._channel.recv(limit, timeout_s)


def _line(order: Mapping[str, Any]) -> bytes:
    return json.dumps(order).encode() + b"\n"


def _feed(channel: Channel, data: bytes) -> None:
    """Send from a thread of its own, so that a command that answers before it has read all cannot block us."""
    try:
        channel.send(data)
        channel.close_input()
    except HostError:
        return  # the reader meets the same and says it
