"""What will be done: pure, complete, and printable before anything starts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from overnight.below import Below
from overnight.caps import Caps, check_budget, check_limits, check_providers
from overnight.env import EnvPatch
from overnight.failures import BadInput
from overnight.handover import Deliver, Guards
from overnight.launch import Launch, Launcher
from overnight.lockfile import HarnessEntry, Header, ProviderLock, Speaks, Timing, Wiring, suggest
from overnight.resume import check_sessions, go_on
from overnight.route import Route
from overnight.routeenv import USUAL_PATH as USUAL_PATH
from overnight.routeenv import route_env, route_flags, workspace_env
from overnight.session import Resume, Resumed
from overnight.spec import BatchSpec, Limits, TaskSpec

COMMIT_REQUEST = "\n\nBefore you finish, commit your work with git on the branch that is checked out."
_USUAL, _HERE = Guards(), Deliver()
_DECIDED_AT_HOME = frozenset({"approve", "speaks", "verify_on", "verify_twice", "guards", "deliver"})


@dataclass(frozen=True)
class RunPlan:
    """One attempt, decided. Everything but the executable's place and the base commit of a URL is known here.

    `env` is the whole environment; its values may hold `{home}`, `{tmp}`,
    `{run}` and `{cwd}`, which the host replaces by the run's folders and the one it works in. `longest_wait_s` is
    the longest silence the harness may keep while it waits for the provider,
    None when it cannot be told how long to wait. `speaks` is the API at `base_url`,
    in which the direct probe asks. With `approve` the commits come
    home without a branch, which a person has to allow first. `resume` is the
    other way to start it, None when nothing was there to go on with. `below` is
    what a stacked task starts from; `base` is its tip then.
    """

    run_id: str
    batch_id: str
    task_id: str
    attempt: int
    route: Route
    command: str
    argv: tuple[str, ...]
    env: EnvPatch
    home_files: tuple[tuple[str, str], ...]
    repo: str
    base: str
    base_sha: str | None
    branch: str
    limits: Limits
    header: Header
    key_variable: str
    base_url: str
    longest_wait_s: float | None
    speaks: Speaks = "anthropic"
    verify: str | None = None
    approve: bool = False
    verify_on: Literal["host", "here"] = "host"
    verify_twice: bool = False
    guards: Guards = _USUAL
    deliver: Deliver = _HERE
    resume: Resume | None = None
    below: Below | None = None

    @property
    def names(self) -> dict[str, str]:
        """What fills the gaps in a remedy."""
        return self.route.names

    def located(self, executable: str) -> RunPlan:
        """The same plan with the command at its place on the host."""
        return replace(self, argv=(executable, *self.argv[1:]))

    def going_on(self, what: Resumed) -> RunPlan:
        """The same plan once it is known whether it can go on."""
        resume = self.resume or Resume(what)
        argv = (self.argv[0], *resume.argv[1:]) if what.session else self.argv
        return replace(self, argv=argv, resume=replace(resume, what=what))

    def based(self, sha: str) -> RunPlan:
        return replace(self, base_sha=sha)

    def shown(self) -> dict[str, Any]:
        """The whole plan as JSON data; a key appears as `<provider:NAME>`, an absent variable as its reason."""
        return {
            "schema": 1,
            "run_id": self.run_id,
            "task_id": self.task_id,
            "attempt": self.attempt,
            "route": self.route.model_dump(),
            "argv": list(self.argv),
            "env": {name: str(binding) for name, binding in self.env},
            "home_files": dict(self.home_files),
            "workspace": {"repo": self.repo, "base": self.base, "base_sha": self.base_sha, "branch": self.branch},
            "limits": self.limits.model_dump(),
            "wire": {"url": self.base_url, "key_in": self.key_variable, "sent_as": self.header.wire},
            "speaks": self.speaks,
            "longest_wait_s": self.longest_wait_s,
            "verify": self.verify,
            "approve": self.approve,
            "verify_on": self.verify_on,
            "verify_twice": self.verify_twice,
            "guards": self.guards.model_dump(mode="json"),
            "deliver": self.deliver.model_dump(mode="json", exclude_none=True),
            **({"resumed": self.resume.what.model_dump(mode="json")} if self.resume else {}),
        }

    @property
    def environment(self) -> str:
        """Tells the environments of runs apart: a hash of all names and values, a key being its provider's name."""
        told = json.dumps({name: str(binding) for name, binding in self.env})
        return hashlib.sha256(told.encode()).hexdigest()[:12]

    @property
    def digest(self) -> str:
        """Decides whether a run id that exists on a host is this plan. What is decided at home is of no concern."""
        told = {name: value for name, value in self.shown().items() if name not in _DECIDED_AT_HOME}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Planner:
    """Turns tasks into plans with one lock, one set of harnesses and one batch."""

    lock: ProviderLock
    lock_path: str
    harnesses: Mapping[str, Launcher]
    batch: BatchSpec
    batch_id: str

    def resolve(self, task: TaskSpec, attempt: int, base_sha: str | None) -> RunPlan:
        """Decide one attempt.

        Raises:
            BadInput: an unknown provider, harness or model, a cap the harness does not
                honour, or waits that do not fit into the limits.
        """
        route, field = task.route, task.route_field
        wiring = self._wiring(route, field)
        entry = self.lock.harness(route.harness, where=self.batch.source, field=f"{field}.harness")
        timing = wiring.timing or entry.timing
        self._check_waits(task, timing)
        harness = self._launcher(route, field)
        caps = self.caps(route)
        check_limits(caps, task.limits, self.batch.source, f"{task.field}.limits", self.harnesses)
        check_sessions(task, self.batch.source, self.harnesses)
        after = task.told + (COMMIT_REQUEST if task.ask_for_commit else "")
        launch = Launch(
            executable=harness.COMMAND,
            instruction=task.instruction + after,
            model=route.model,
            flags=self._flags(route, wiring, entry.flags, timing),
            max_usd=task.limits.max_usd if caps.own("max_usd") else None,
            max_turns=task.limits.max_turns if caps.own("max_turns") else None,
            keeps=task.resume_session,
        )
        return self._plan(
            task=task,
            run_id=f"{self.batch_id}.{task.id}.{attempt}",
            attempt=attempt,
            argv=harness.argv(launch),
            launch=launch,
            timing=timing,
            env=self._env(task, wiring, entry, timing, {}),
            limits=task.limits,
            base_sha=base_sha,
            resume=_resume(task.resumed, harness, launch, after),
        )

    def probe(self, task: TaskSpec, nonce: str, instruction: str) -> RunPlan:
        """The probe of a task's route: the run's own plan with a shorter question and shorter waits."""
        route, field = task.route, task.route_field
        wiring = self._wiring(route, field)
        entry = self.lock.harness(route.harness, where=self.batch.source, field=f"{field}.harness")
        harness, mode = self._launcher(route, field), entry.probe
        flags = self._flags(route, wiring, entry.flags, mode.timing) + mode.flags
        launch = Launch(harness.COMMAND, instruction, route.model, flags)
        limits = task.limits.model_copy(
            update={
                "total_s": mode.total_s,
                "first_event_s": None,
                "quiet_s": None,
                "turn_s": None,
                "no_change_s": None,
                "grace_s": 2.0,
            }
        )
        return self._plan(
            task=task,
            run_id=f"{self.batch_id}.probe-{nonce}.1",
            attempt=1,
            argv=harness.probe_argv(launch),
            launch=launch,
            timing=mode.timing,
            env=self._env(task, wiring, entry, mode.timing, mode.env),
            limits=limits,
            base_sha=None,
        )

    def check(self) -> list[RunPlan]:
        """Every task's first attempt, on each of its routes. Raises like `resolve`, so one bad task starts nothing."""
        plans = [self.resolve(task, 1, None) for task in self.batch.placed]
        reached = {route.provider for route in self.batch.routes}
        check_providers(self.batch.providers, reached, self.batch.source, "providers")
        check_budget(self.batch.budget, map(self.caps, self.batch.routes), self.batch.source)
        return plans

    def caps(self, route: Route) -> Caps:
        """What can be capped on a route of the batch; it must be a known one."""
        return Caps(route, self.harnesses[route.harness], self.lock.providers[route.provider])

    def _plan(
        self,
        *,
        task: TaskSpec,
        run_id: str,
        attempt: int,
        argv: tuple[str, ...],
        launch: Launch,
        timing: Timing | None,
        env: EnvPatch,
        limits: Limits,
        base_sha: str | None,
        resume: Resume | None = None,
    ) -> RunPlan:
        route = task.route
        harness = self.harnesses[route.harness]
        provider = self.lock.providers[route.provider]
        wiring = provider.harnesses[route.harness]
        endpoint = provider.endpoints[wiring.endpoint]
        variable = wiring.key_variables[0]
        header = harness.HEADER_OF[variable]
        told = replace(launch, base_url=endpoint.url, header=header, timing=timing)
        return RunPlan(
            run_id=run_id,
            batch_id=self.batch_id,
            task_id=task.id,
            attempt=attempt,
            route=route,
            command=harness.COMMAND,
            argv=argv,
            env=env,
            home_files=tuple(harness.home_files(told).items()),
            repo=task.repo,
            base=task.below.tip if task.below else task.base,
            base_sha=base_sha,
            branch=f"overnight/{self.batch_id}/{task.id}",
            limits=limits,
            header=header,
            key_variable=variable,
            base_url=endpoint.url,
            speaks=endpoint.speaks,
            longest_wait_s=timing.longest_s if timing else None,
            verify=task.verify,
            approve=task.approve,
            verify_on=task.verify_on,
            verify_twice=task.verify_twice,
            guards=task.guards,
            deliver=task.deliver,
            resume=resume,
            below=task.below,
        )

    def _launcher(self, route: Route, field: str) -> Launcher:
        if route.harness not in self.harnesses:
            near = suggest(route.harness, self.harnesses)
            raise BadInput(self.batch.source, f"{field}.harness", f"unknown harness {route.harness!r}", near)
        return self.harnesses[route.harness]

    def _wiring(self, route: Route, field: str) -> Wiring:
        where = self.batch.source
        self.lock.provider(route.provider, where=where, field=f"{field}.provider")
        wiring = self.lock.wiring(route.provider, route.harness, where=where, field=f"{field}.harness")
        self.lock.model(route.provider, route.model, where=where, field=f"{field}.model")
        if len(wiring.key_variables) != 1:
            place = f"providers.{route.provider}.harnesses.{route.harness}.set"
            raise BadInput(self.lock_path, place, "needs exactly one variable with {key}", "Name one variable")
        variable, known = wiring.key_variables[0], self._launcher(route, field).HEADER_OF
        if variable not in known:
            place = f"providers.{route.provider}.harnesses.{route.harness}.set.{variable}"
            problem = f"{route.harness} reads no key from {variable}"
            raise BadInput(self.lock_path, place, problem, suggest(variable, known))
        return wiring

    def _flags(self, route: Route, wiring: Wiring, own: tuple[str, ...], timing: Timing | None) -> tuple[str, ...]:
        url = self.lock.providers[route.provider].endpoints[wiring.endpoint].url
        return route_flags(own + wiring.flags, url, route.model, timing)

    def _env(
        self, task: TaskSpec, wiring: Wiring, entry: HarnessEntry, timing: Timing | None, more: Mapping[str, str]
    ) -> EnvPatch:
        route, host = task.route, self.batch.hosts[task.route.host]
        url = self.lock.providers[route.provider].endpoints[wiring.endpoint].url
        try:
            wired = route_env(route.provider, wiring, entry, url, route.model, timing, more)
            return workspace_env(host, self.batch.author).joined(wired)
        except ValueError as error:
            place = f"providers.{route.provider}.harnesses.{route.harness}"
            raise BadInput(self.lock_path, place, str(error), "State each variable once") from error

    def _check_waits(self, task: TaskSpec, timing: Timing | None) -> None:
        """request timeout x (retries + 1) + backoff < quiet_s < total_s, or a silence cannot be told from a wait."""
        limits, field = task.limits, f"{task.field}.limits"
        if limits.quiet_s is not None and limits.quiet_s >= limits.total_s:
            numbers = f"quiet_s {limits.quiet_s:g} is not below total_s {limits.total_s:g}"
            raise BadInput(self.batch.source, f"{field}.quiet_s", numbers, "Lower quiet_s or raise total_s")
        if timing is None or limits.quiet_s is None or timing.longest_s < limits.quiet_s:
            return
        numbers = (
            f"{task.route.harness} may wait {timing.request_timeout_s:g} s x ({timing.retries} + 1) + "
            f"{timing.backoff_s:g} s = {timing.longest_s:g} s in silence, quiet_s is {limits.quiet_s:g} s"
        )
        raise BadInput(self.batch.source, f"{field}.quiet_s", numbers, f"Raise quiet_s above {timing.longest_s:g}")


def _resume(what: Resumed | None, harness: Launcher, launch: Launch, after: str) -> Resume | None:
    if what is None or what.session is None or isinstance(harness.SESSIONS, str):
        return Resume(what) if what else None
    goes_on = replace(launch, instruction=go_on(what) + after, session=what.session)
    return Resume(what, harness.argv(goes_on), harness.SESSIONS)
