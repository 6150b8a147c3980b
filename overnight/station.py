"""One host made ready for runs: a connection, a supervisor, a follow channel, and what was found there."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

from overnight.attendance import GIVE_UP_S, GONE_S, TICK_S, Attendance, Attended, Interrupt, Say
from overnight.failures import Evidence, Failure, FailureKind, HostError, RouteError, fail
from overnight.follow import Follower, LinkState, RunCopy
from overnight.guard import Guard
from overnight.harnesses.protocol import Harness
from overnight.hosts.local import LocalHost
from overnight.hosts.protocol import Host
from overnight.hosts.ssh import SshAddress, SshHost
from overnight.plan import USUAL_PATH, RunPlan
from overnight.remote import Remote, RunBounds, SecretSlot, StartAnswer, StartOrder
from overnight.room import check_room
from overnight.spec import HostSpec, Limits
from overnight.stop import Stop
from overnight.transcript import Said
from overnight.workspace import Workspaces

__all__ = ["GIVE_UP_S", "GONE_S", "TICK_S", "Interrupt", "Station", "bounds", "make_host"]

_K = FailureKind
_VERSION_S = 20.0
# stages are retried and links redialled anyway: a host that is down should be named soon
PATIENCE_S = 5.0


class Station:
    """Everything a batch needs of one host. Thread-safe; nothing connects before it is needed."""

    def __init__(self, name: str, spec: HostSpec, tell: Callable[[LinkState], None]) -> None:
        self.name = name
        self.spec = spec
        self.given_up = False  # it stayed out of reach for so long that nobody waits for it any more
        self.remote = Remote(make_host(name, spec), spec.directory, spec.python)
        self.workspaces = Workspaces(self.remote)
        self._tell = tell
        self._lock = threading.Lock()
        self._follower: Follower | None = None
        self._found: dict[str, tuple[str, str | None]] = {}
        self._locating: dict[str, threading.Lock] = {}
        self._attendance = Attendance(name)

    @property
    def closed(self) -> bool:
        """Whether nobody here follows anything any more."""
        return self._attendance.closed

    @property
    def follower(self) -> Follower:
        """The one follow channel of this host, opened at first use."""
        with self._lock:
            if self._follower is None:
                self._follower = Follower(self.remote, self._tell)
            return self._follower

    def fit(self) -> None:
        """Check what every run needs.

        Raises:
            HostError: no connection, no usable python, no git, or no room on its disk.
        """
        check_room(self.remote.install().disk_free_bytes, self.spec.min_free_bytes, self.name)
        if self.remote.find(["git"], USUAL_PATH)["git"] is None:
            seen = f"no git in {':'.join(USUAL_PATH)}"
            raise HostError(
                fail(_K.HOST_UNFIT, Evidence(source="host", seen=seen, where=self.name), names={"host": self.name})
            )

    def locate(self, harness: Harness) -> tuple[str, str | None]:
        """Absolute path of the harness's command and the version it prints; asked once, whoever asks meanwhile waits.

        The version is None when the command says none that can be read, or
        nothing within 20 s: that is a note, and the probe finds out the rest.

        Raises:
            RouteError: it is not on the host's path.
        """
        with self._lock:
            gate = self._locating.setdefault(harness.NAME, threading.Lock())
        with gate:
            if harness.NAME not in self._found:
                self._found[harness.NAME] = self._located(harness)
            return self._found[harness.NAME]

    def _located(self, harness: Harness) -> tuple[str, str | None]:
        path = [*self.spec.path, *USUAL_PATH]
        executable = self.remote.find([harness.COMMAND], path)[harness.COMMAND]
        if executable is None:
            evidence = Evidence(source="host", seen=f"no {harness.COMMAND} in {':'.join(path)}", where=self.name)
            raise RouteError(fail(_K.HARNESS_MISSING, evidence, names={"host": self.name, "harness": harness.NAME}))
        argv, env = list(harness.version_argv(executable)), {"PATH": ":".join(path), "LANG": "C.UTF-8"}
        try:
            done = self.remote.execute(argv, env={**env, "HOME": "/nonexistent"}, timeout_s=_VERSION_S)
        except TimeoutError:
            return executable, None
        return executable, harness.read_version((done.out + done.err).decode("utf-8", "replace"))

    def run_dir(self, run_id: str) -> str:
        """Absolute path of a run's folder on the host."""
        return f"{self.remote.install().root}/runs/{run_id}"

    def holds(self, run_id: str) -> bool:
        """Whether the host was asked to start this run and took it on.

        Raises:
            HostError: the connection failed.
        """
        return self.remote.execute(["test", "-e", f"{self.run_dir(run_id)}/claim"]).code == 0

    def start(self, plan: RunPlan, cwd: str, key: str) -> StartAnswer:
        """Hand a located plan to the supervisor. Idempotent by run id; the key goes over stdin only.

        Raises:
            HostError: the connection failed, or the run id exists there with another plan.
        """
        secrets = plan.env.secrets()
        order = StartOrder(
            run_id=plan.run_id,
            digest=plan.digest,
            argv=plan.argv,
            limits=bounds(plan.limits),
            env=plan.env.values(),
            secrets=tuple(SecretSlot(name, provider) for name, provider in secrets.items()),
            cwd=cwd,
            files=dict(plan.home_files),
        )
        answer = self.remote.start(order, [key.encode()] * len(secrets))
        if answer.answer == "conflict":
            seen = f"{answer.run_dir} holds another plan under this run id"
            raise HostError(fail(_K.WORKSPACE, Evidence(source="host", seen=seen, where=self.name)))
        return answer

    def attend(
        self,
        plan: RunPlan,
        directory: Path,
        key: str,
        guard: Guard,
        *,
        tell: Callable[[Said], None],
        interrupted: Callable[[], Interrupt | None],
        stopping: Callable[[Stop], None] = lambda _: None,
        give_up_s: float = GIVE_UP_S,
    ) -> Failure | None:
        """Follow a started run until it has an ending; blocks.

        Args:
            directory: Where our own copy of its output grows; an existing copy is read first, then continued.
            guard: Judges the run. Its `stop` may be set: an earlier controller asked for the run's end.
            tell: Called for each agent event worth a line.
            interrupted: Asked every half second; `cancel` ends the run, `detach` leaves it and returns.
            stopping: Told why we are about to ask for it, before we do: it must survive us.
            give_up_s: How long a host may stay out of reach past the run's own limit.

        Returns:
            Why we lost sight of the run, if we did. `guard.stop` says why we ended
            it, if we did. `guard.watch.ending` stays None after
            `detach` and `close`, and when the host stayed out of reach: for
            `give_up_s`, or for 45 s of a run that is to be cancelled.
        """
        run_id, copy = plan.run_id, RunCopy(directory, [key.encode()], owns=True)
        guard.looks_with(lambda: self.follower.sample(run_id))
        lost = partial(self._out_of_reach, plan)
        say = Say(tell, stopping, interrupted, lambda: self.follower.cancel(run_id), lost)
        try:
            for event in copy.replay():
                guard.watch.take(event)
            attended = Attended(guard, say, plan.limits.total_s + give_up_s)
            self.follower.watch(run_id, copy, partial(self._attendance.hear, attended))
            self._attendance.add(attended)
            return attended.outcome.result()
        finally:
            self.follower.unwatch(run_id)
            copy.close()

    def _out_of_reach(self, plan: RunPlan, silent_s: float) -> Failure:
        lies = f"{self.spec.directory}/runs/{plan.run_id}"
        seen = f"no word from the host for {silent_s:.0f} s; the run may still live in {lies}"
        return fail(_K.HOST_UNREACHABLE, Evidence(source="host", seen=seen, where=self.name), names=plan.route.names)

    def close(self) -> None:
        """Let go of the host; runs on it go on, and whoever waits for one here stops waiting."""
        self._attendance.close()
        if self._follower is not None:
            self._follower.close()
        self.remote.close()


def bounds(limits: Limits) -> RunBounds:
    """The part of the limits that the host enforces by itself."""
    return RunBounds(limits.total_s, limits.grace_s, limits.max_log_bytes, limits.max_processes)


def make_host(name: str, spec: HostSpec) -> Host:
    """The host a spec describes; `spec` must be complete (blocks already loaded)."""
    if spec.kind == "local":
        return LocalHost(name)
    if spec.address is None or spec.user is None or spec.key_file is None:
        raise ValueError(f"host {name} is not complete")
    known = spec.known_hosts or Path("~/.ssh/known_hosts").expanduser()
    address = SshAddress(name, spec.address, spec.port, spec.user, spec.key_file, spec.host_key, known)
    return SshHost(address, patience_s=PATIENCE_S)


def link_words(host: str, tell: Callable[[str, str, str], None]) -> Callable[[LinkState], None]:
    """Tells of a link that goes down and comes back; of one that was never down it says nothing."""
    was_down = threading.Event()

    def say(state: LinkState) -> None:
        if not state.up:
            was_down.set()
            tell(host, "link", f"down: {state.failure.brief}" if state.failure else "down")
        elif was_down.is_set():
            was_down.clear()
            tell(host, "link", "up again")

    return say
