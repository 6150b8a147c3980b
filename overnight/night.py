"""One batch being carried out: its stages as plain functions, and what they share.

No Prefect here. Every stage writes its record to the ledger before it returns,
and every stage may be repeated: that is how a batch is resumed.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from overnight.clock import now
from overnight.collected import Collected
from overnight.ends import Ends
from overnight.failures import BadInput, Evidence, Failure, FailureError, FailureKind, Family, HostError, Retry, fail
from overnight.git import bare
from overnight.guard import Guard
from overnight.handle import RunHandle
from overnight.harnesses.protocol import Harness
from overnight.ledger import Ledger
from overnight.lockfile import ProviderLock
from overnight.monitor import watched
from overnight.morning import many
from overnight.plan import Planner, RunPlan
from overnight.preflight import QUESTION, Checked, Question, check, reprobes
from overnight.redact import fingerprint
from overnight.report import PassedOver, RouteReport, RunReport, State, Verify
from overnight.route import Route
from overnight.scrutiny import judge
from overnight.spec import BatchSpec, TaskSpec
from overnight.spending import Spending
from overnight.stack import stand
from overnight.stages import Stages, Watched, diagnose, never_started, run_report, starvation, state_after
from overnight.station import Interrupt, Station, link_words
from overnight.verify import verify
from overnight.watch import Watch
from overnight.workspace import home_of

__all__ = ["Night", "Stages", "Tell", "Watched", "now"]

Tell = Callable[[str, str, str], None]
"""(task id or route, stage, words): one line of progress."""


class Night:
    """What the stages of one batch share. Thread-safe."""

    def __init__(
        self,
        *,
        batch: BatchSpec,
        ledger: Ledger,
        lock: ProviderLock,
        lock_path: Path,
        harnesses: Mapping[str, Harness],
        reveal: Callable[[str], str],
        search_path: str,
        tell: Tell,
    ) -> None:
        self.batch = batch
        self.ledger = ledger
        self.lock = lock
        self.lock_path = lock_path
        self.harnesses = harnesses
        self.planner = Planner(lock, str(lock_path), harnesses, batch, ledger.batch_id)
        self.spending = Spending(batch, lock, self.planner, ledger)
        self.tell = tell
        self.interrupted = threading.Event()
        self.interrupt: Interrupt | None = None
        self.ends = Ends(ledger.directory)
        self.checked: dict[Route, Checked] = {}
        self.came_through: Callable[[str], None] = lambda _: None
        self.passed_over: dict[str, tuple[PassedOver, ...]] = {}
        self._reveal = reveal
        self.search_path = search_path
        self._lock = threading.Lock()
        self._keys: dict[str, str] = {}
        self._fingerprints: dict[str, str] = {}
        used = {route.host for route in batch.routes}
        self.stations = {n: Station(n, s, link_words(n, tell)) for n, s in batch.hosts.items() if n in used}

    def preflight(self, task: TaskSpec) -> Checked:
        """Probe the route of a task, once per batch.

        Raises:
            HostError: the host could not be reached for now; worth another try.
        """
        question, route = self._question(task), task.route
        self.ledger.save(question.plan.run_id, "plan", question.plan.shown())
        self.tell(str(route), "preflight", "probing")
        found = check(question, self.stations[route.host], self.key, self.wish)
        self.settle(found)
        return found

    def _question(self, task: TaskSpec) -> Question:
        """A new probe of a task's route."""
        route = task.route
        nonce = f"nonce{os.urandom(4).hex()}"
        plan = self.planner.probe(task, nonce, QUESTION.format(nonce=nonce))
        return Question(
            plan=plan,
            nonce=nonce,
            harness=self.harnesses[route.harness],
            provider=self.lock.providers[route.provider],
            entry=self.lock.harnesses[route.harness],
            directory=self.ledger.run_dir(plan.run_id),
        )

    def settle(self, found: Checked) -> None:
        """Record what preflight found of a route."""
        with self._lock:
            self.checked[found.route] = found
        words = (
            f"open after {found.seconds:.1f} s"
            if found.failure is None
            else f"SHUT after {found.seconds:.1f} s: {found.failure.brief}"
        )
        self.tell(str(found.route), "preflight", words)
        for note in found.notes:
            self.tell(str(found.route), "preflight", f"note: {note}")

    def shut(self, route: Route, failure: Failure) -> None:
        """Close a route for the rest of the batch, because a run proved what is wrong with it."""
        with self._lock:
            if self.checked[route].failure is not None:
                return
            self.checked[route] = replace(self.checked[route], failure=failure)
        self.tell(str(route), "route", f"SHUT by a run: {failure.brief}")

    def reopen(self, route: Route) -> None:
        """A window that preflight found used up has opened again: a run came through."""
        with self._lock:
            found = self.checked[route]
            if found.failure is not None and not found.failure.shuts_for_good:
                self.checked[route] = replace(found, failure=None, notes=(*found.notes, f"was: {found.failure.brief}"))

    def stop(self, how: Interrupt) -> None:
        """Tell every stage that the batch is interrupted; `cancel` overrules `detach`, never the other way round."""
        with self._lock:
            if self.interrupt != "cancel":
                self.interrupt = how
        self.interrupted.set()

    def wish(self, task_id: str = "") -> Interrupt | None:
        """What shall become of a task, or of the whole batch: as it was interrupted, or as another process asked."""
        if self.ends.whole():
            self.stop("cancel")
        return "cancel" if self.ends.of(task_id) else self.interrupt

    def shut_by(self, route: Route) -> Failure | None:
        with self._lock:
            found = self.checked.get(route)
        return found.failure if found else None

    def key(self, provider: str) -> str:
        """The provider's key, asked for once per batch.

        Raises:
            FailureError: there is none, or what is stored cannot be one.
        """
        with self._lock:
            if provider not in self._keys:
                try:
                    self._keys[provider] = self._reveal(provider)
                except BadInput as error:
                    seen = Evidence(source="keys", seen=f"{error.where}: {error.field} {error.problem}")
                    raise FailureError(fail(FailureKind.KEY_MISSING, seen, remedy=error.mend)) from error
                self._fingerprints[provider] = fingerprint(self._keys[provider], self.ledger.batch_id)
            return self._keys[provider]

    def dispatch(self, plan: RunPlan) -> tuple[RunPlan, RunHandle]:
        """Bring the repository to the host and start the run; on a run that exists there, only find it.

        Raises:
            WorkspaceError: the repository could not be brought there.
            HostError: the host could not be reached.
            RouteError: the agent's command is gone.
        """
        known = self.ledger.handle(plan.run_id)
        if known is not None:
            return plan.based(known.base_sha), known
        station, route = self.stations[plan.route.host], plan.route
        executable, version = station.locate(self.harnesses[route.harness])
        plan = plan.located(executable)
        repo, own = home_of(plan, self.ledger.state, self.search_path)
        stand(plan, repo, station, self.batch.hosts, partial(self.tell, plan.task_id, "dispatch"))
        run_dir = station.run_dir(plan.run_id)
        plan = station.workspaces.carry(plan, run_dir, station.spec.min_free_bytes)
        work, base = station.workspaces.prepare(plan, repo if own else None, run_dir, station.spec.min_free_bytes)
        plan = plan.based(base)
        self.ledger.save(plan.run_id, "plan", plan.shown())
        started_at = now()
        answer = station.start(plan, work, self.key(route.provider))
        handle = RunHandle(
            run_id=plan.run_id,
            host=route.host,
            run_dir=run_dir,
            work_dir=work,
            base_sha=base,
            started_at=started_at,
            harness_version=version,
            resumed=plan.resume.what if plan.resume else None,
        )
        self.ledger.save(plan.run_id, "handle", handle)
        self.ledger.log(plan.run_id, now(), "dispatched", answer=answer.answer, host=route.host, run_dir=run_dir)
        resumed = f"; it {plan.resume.what}" if plan.resume else ""
        self.tell(plan.task_id, "dispatch", f"running on {route.host} as {plan.run_id}{resumed}")
        return plan, handle

    def begun(self, plan: RunPlan) -> bool:
        """Whether the attempt may live on its host: an earlier start of ours asked for it, whatever we heard back."""
        if self.ledger.handle(plan.run_id) is not None:
            return True
        if not self.ledger.planned(plan.run_id):
            return False
        try:
            return self.stations[plan.route.host].holds(plan.run_id)
        except HostError:
            return True

    def monitor(self, plan: RunPlan) -> Watched:
        """Follow a run until it ends, is stopped for a cause, or this process is told to leave it."""
        provider = self.lock.providers[plan.route.provider]
        spoke = partial(self.came_through, plan.task_id)
        watch = Watch(plan, self.harnesses[plan.route.harness], provider.errors, came_through=spoke)
        task = next(task for task in self.batch.tasks if task.id == plan.task_id).on(plan.route)
        station, key = self.stations[plan.route.host], self.key(plan.route.provider)
        asked_again = reprobes(lambda: self._question(task), station, key, lambda: watch.age_s)
        guard = Guard(watch, asked_again, spends=self.spending.over(watch))
        tell, wish = partial(self.tell, plan.task_id, "run"), partial(self.wish, plan.task_id)
        return watched(guard, station, self.ledger, key, tell, wish)

    def collect(self, plan: RunPlan, handle: RunHandle) -> Collected:
        """Bring the commits home.

        Raises:
            CollectError: with the place where they still lie.
            HostError: the connection failed; worth another try.
        """
        repo, own = home_of(plan, self.ledger.state, self.search_path)
        if not own:
            repo = bare(repo.path, repo.search_path)
        judged = partial(judge, guards=plan.guards, key=self._keys.get(plan.route.provider, ""))
        found = self.stations[plan.route.host].workspaces.collect(plan, handle, repo, judged)
        where = "" if found.branch or not found.commits else f" on {' '.join(found.others)}"
        left = f", {found.leftovers.count} files left over on {found.leftovers.ref}" if found.leftovers else ""
        self.tell(plan.task_id, "collect", f"{many(len(found.commits), 'commit')}{where}{left}")
        self.ledger.log(plan.run_id, now(), "collected", tip=found.tip, commits=len(found.commits))
        return found

    def verify(self, plan: RunPlan, handle: RunHandle, tip: str) -> Verify | None:
        """Run the task's check on a fresh clone of what came home; None when we were told to leave it."""
        directory = self.ledger.run_dir(plan.run_id) / "verify"
        home, _ = home_of(plan, self.ledger.state, self.search_path)
        station, key = self.stations[plan.route.host], self.key(plan.route.provider).encode()
        wish = partial(self.wish, plan.task_id)
        found = verify(plan, handle, tip, station, directory, home, secrets=[key], interrupted=wish)
        if found is None:
            return None
        self.tell(plan.task_id, "verify", f"exit code {found.exit_code} after {found.seconds:.0f} s")
        return found

    def diagnose(self, plan: RunPlan, stages: Stages) -> Failure | None:
        """Why the attempt failed, as far as it came; None when nothing speaks against it."""
        return diagnose(plan, stages)

    def report(self, plan: RunPlan, stages: Stages, error: Failure | None) -> RunReport:
        """What is to be said of an attempt.

        Args:
            error: What kept a stage from finding out. It is the cause only when
                the run itself had none; otherwise it joins the evidence.
        """
        failure = self.diagnose(plan, stages)
        if error is not None:
            failure = failure.also(*error.evidence) if failure else starvation(plan, stages, error) or error
        failure = self.ends.named(plan.task_id, failure)
        return self._report(plan, stages, state_after(failure), failure)

    def undecided(self, plan: RunPlan, error: Failure) -> bool:
        """Whether `error` leaves the run living on its host for all we know; then nothing about it is decided.

        Neither can a run be followed without its key, by which our copy of its output is masked.
        """
        unheard = error.family is Family.HOST and error.retry is Retry.BACKOFF
        unread = error.kind is FailureKind.KEY_MISSING and self.ledger.handle(plan.run_id) is not None
        return unread or (unheard and self.ledger.planned(plan.run_id))

    def left(self, plan: RunPlan, stages: Stages, why: Failure | None) -> RunReport:
        """The report of a run that may go on without us. Not written to the ledger: it is not decided.

        Args:
            why: What keeps us from it; None when we were told to leave it.
        """
        handle = stages.handle or self.ledger.handle(plan.run_id)
        if handle is not None:
            seen = f"left running on {plan.route.host} in {handle.run_dir}"
        else:
            seen = f"asked {plan.route.host} to start it as {plan.run_id} and heard no answer; it may run there"
        lies = Evidence(source="host", seen=seen)
        remedy = f"go on with it: python -m flows.batch --resume {plan.batch_id}"
        kind, evidence = (why.kind, (*why.evidence, lies)) if why else (FailureKind.CANCELLED, (lies,))
        failure = fail(kind, *evidence, remedy=remedy)
        self.tell(plan.task_id, "done", failure.brief)
        return self._report(plan, stages, state_after(failure), failure).model_copy(update={"left_running": True})

    def _report(self, plan: RunPlan, stages: Stages, state: State, failure: Failure | None) -> RunReport:
        log, credential = str(self.ledger.run_dir(plan.run_id)), self._fingerprints.get(plan.route.provider)
        run = self.spending.priced(run_report(plan, stages, state, failure, log, credential), plan, stages)
        return run.model_copy(update={"passed_over": self.passed_over.get(plan.run_id, ())})

    def decide(self, run: RunReport) -> None:
        """Write an attempt's outcome down. From here on it is never run again."""
        self.ledger.save(run.run_id, "outcome", run)
        self.spending.note(run)
        why = f": {run.failure.brief}" if run.failure else f", {many(len(run.commits), 'commit')}"
        self.tell(run.task_id, "done", f"{run.state}{why}")

    def skipped(self, task: TaskSpec, failure: Failure, state: State = "skipped") -> RunReport:
        """The report of a task that never started."""
        self.tell(task.id, "done", f"{state}: {failure.kind}")
        found = self.checked.get(task.route)
        return never_started(task, found.version if found else None, state, failure)

    def routes(self) -> tuple[RouteReport, ...]:
        """Every route of the batch as it stands now."""
        return tuple(self._route(route) for route in self.batch.routes)

    def _route(self, route: Route) -> RouteReport:
        found = self.checked.get(route)
        failure = found.failure if found else None
        return RouteReport(
            **route.model_dump(),
            state="shut" if failure else "open",
            preflight_s=round(found.seconds, 2) if found else None,
            harness_version=found.version if found else None,
            notes=found.notes if found else (),
            failure=failure,
        )

    def close(self) -> None:
        """Let go of every host. Whoever still follows a run in another thread leaves it."""
        for station in self.stations.values():
            station.close()
