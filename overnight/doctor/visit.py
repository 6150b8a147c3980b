"""One visit of the doctor: every host looked at, every route examined, all at the same time."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path

from overnight.doctor.disagreement import Layer
from overnight.doctor.examine import Case, examine
from overnight.doctor.look import look
from overnight.doctor.records import Checkup, Diagnosis, Finding, HostLook
from overnight.doctor.repository import RepositoryLook, look_here, look_there
from overnight.doctor.values import Values, wanted
from overnight.failures import Failure, FailureError, Family
from overnight.git import Repo
from overnight.lockfile import ProviderLock
from overnight.night import Night
from overnight.preflight import QUESTION
from overnight.report import RouteReport
from overnight.route import Route
from overnight.spec import TaskSpec, is_url
from overnight.station import GONE_S

NO_REPOSITORY = ""
"""The `repo` of a route that is examined for no task."""


class Visit:
    """What the looks and examinations of one night's routes share. Thread-safe.

    Args:
        shipped: The lock that came with the program; what is in use is compared with it.
        find: Search for what would work whatever the answers are.
    """

    def __init__(self, night: Night, shipped: ProviderLock, *, find: bool) -> None:
        self.night = night
        self._shipped = shipped
        self._find = find
        self._looks: dict[str, Future[HostLook | None]] = {name: Future() for name in night.stations}
        self._diagnoses: dict[Route, Diagnosis] = {}
        self._busy = threading.Condition()
        self._examining = 0

    def look(self, host: str) -> HostLook:
        """Look at one host, for everybody who waits for it.

        Raises:
            FailureError: it could not be looked at.
        """
        self.night.tell(host, "host", "looking")
        try:
            found = self._look(host)
        except BaseException:
            self._looks[host].set_result(None)  # whoever waits must not wait for ever
            raise
        self._looks[host].set_result(found)
        errors = sum(each.weight == "error" for each in found.findings)
        self.night.tell(host, "host", f"looked at in {found.seconds:.1f} s" + (f", {errors} wrong" if errors else ""))
        return found

    def _look(self, host: str) -> HostLook:
        night = self.night
        firsts = {task.route: task for task in night.batch.placed if task.route.host == host}
        plans = [night.planner.probe(task, "look", QUESTION.format(nonce="look")) for task in firsts.values()]
        keys: dict[str, str] = {}
        for provider in {route.provider for route in firsts}:
            with suppress(FailureError):  # a route without a key is told as such by its own examination
                keys[provider] = night.key(provider)
        harnesses = {route.harness for route in firsts}
        found = look(night.stations[host], night.lock, keys, wanted(plans), harnesses)
        values = Values(night.lock, keys, wanted(plans), harnesses)
        seen = [
            self._repository(host, *each, values) for each in dict.fromkeys((t.repo, t.base) for t in firsts.values())
        ]
        more = {
            name: (*getattr(found, name), *(each for one in seen for each in getattr(one, name)))
            for name in ("shadows", "findings", "not_looked_at")
        }
        return found.model_copy(update=more)

    def _repository(self, host: str, repo: str, base: str, values: Values) -> RepositoryLook:
        if repo == NO_REPOSITORY:
            return RepositoryLook(repo)
        if is_url(repo):
            return look_there(self.night.stations[host].remote, repo, self.night.lock, values)
        return look_here(Repo(Path(repo), self.night.search_path), base, self.night.lock, values)

    def examine(self, task: TaskSpec, note: str | None = None) -> Diagnosis:
        """Examine the route of a task.

        Args:
            note: What is known of its key beside, such as that it ends soon.

        Raises:
            HostError: the host could not be reached for now; worth another try.
        """
        route, night = task.route, self.night
        case = Case(
            task=task,
            batch=night.batch,
            batch_id=night.ledger.batch_id,
            lock=night.lock,
            lock_path=str(night.lock_path),
            shipped=self._shipped,
            harnesses=night.harnesses,
            reveal=night.key,
            run_dir=night.ledger.run_dir,
            find=self._find,
            interrupted=lambda: night.interrupt,
        )
        night.tell(str(route), "doctor", "asking")
        with self._busy:
            self._examining += 1
        try:
            found = examine(case, night.stations[route.host], self._looks[route.host].result)
        finally:
            with self._busy:
                self._examining -= 1
                self._busy.notify_all()
        if note is not None:
            expires = Finding(id="key-expires", weight="warning", seen=note, where=route.provider)
            found = found.model_copy(update={"findings": (*found.findings, expires)})
        self._settle(route, found)
        return found

    def break_off(self) -> None:
        """End every agent that was asked, on its host; waits for that as long as a host is given to answer."""
        self.night.stop("cancel")
        with self._busy:
            self._busy.wait_for(lambda: self._examining == 0, GONE_S)

    def settled(self, route: Route) -> bool:
        """Whether it is known how the route stands."""
        return route in self._diagnoses

    def give_up(self, route: Route, failure: Failure, seconds: float) -> None:
        """Record a route that could not be examined as shut, with the reason."""
        report = RouteReport(**route.model_dump(), state="shut", preflight_s=round(seconds, 2), failure=failure)
        at_fault = Layer.HOST if failure.family is Family.HOST else Layer.UNKNOWN
        self._settle(route, Diagnosis(route=report, layer=at_fault))

    def _settle(self, route: Route, found: Diagnosis) -> None:
        self._diagnoses[route] = found
        report = found.route
        took = f"after {report.preflight_s or 0:.1f} s"
        words = f"open {took}" if report.failure is None else f"SHUT {took}: {report.failure.brief}"
        self.night.tell(str(route), "doctor", words)

    def checkup(self) -> Checkup:
        """All that was found so far, routes in the batch's order."""
        looks = [future.result() for future in self._looks.values() if future.done()]
        found = [self._diagnoses[route] for route in self.night.batch.routes if route in self._diagnoses]
        return Checkup(hosts=tuple(each for each in looks if each is not None), diagnoses=tuple(found))
