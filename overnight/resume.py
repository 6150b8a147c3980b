"""Whether an attempt goes on with the session of the one before it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from overnight.failures import RULES, BadInput, FailureKind
from overnight.report import RunReport
from overnight.session import Resumed, Sessions
from overnight.spec import TaskSpec

_K = FailureKind
_REFUSED = (_K.HARNESS_CRASHED, _K.SILENT_START)

_GO_ON = (
    "Go on with the task where you stopped. What ended you: {meaning}. Your work tree is as you left it, what you did "
    "not commit included; see what is there before you change anything, and stay in the current directory."
)


class Keeper(Protocol):
    """The part of a harness that decides it."""

    @property
    def SESSIONS(self) -> Sessions | str: ...


def check_sessions(task: TaskSpec, where: str, harnesses: Mapping[str, Keeper]) -> None:
    """Refuse `resume_session` where the task's current route cannot hold it.

    Raises:
        BadInput: with why, and the harnesses that can.
    """
    cannot = harnesses[task.route.harness].SESSIONS
    if task.resume_session and isinstance(cannot, str):
        able = [name for name, each in sorted(harnesses.items()) if isinstance(each.SESSIONS, Sessions)]
        problem = f"{task.route.harness} cannot go on with a session: {cannot}"
        raise BadInput(where, f"{task.field}.resume_session", problem, f"Leave it out, or use {' or '.join(able)}")


def resumption(task: TaskSpec, last: RunReport) -> Resumed | None:
    """What the attempt after `last` does with its session; None when it was not asked to.

    Only on the very same route: another host does not have it, another model or provider did not say it.
    """
    if not task.resume_session or last.failure is None or not last.run_id:
        return None
    kind = last.failure.kind
    found = Resumed(run_id=last.run_id, after=kind, session=last.session)
    if last.route != task.route:
        return found.afresh(f"that was {last.route}")
    if last.session is None:
        return found.afresh("it told no session id")
    if kind is _K.LOOPING:
        return found.afresh("it went in circles")
    if kind in _REFUSED and last.resumed is not None and last.resumed.session is not None:
        return found.afresh(f"going on with it had ended as {kind}")
    return found


def go_on(what: Resumed) -> str:
    """The instruction of an attempt that goes on. Nothing that a model or a provider said is in it."""
    return _GO_ON.format(meaning=RULES[what.after].meaning)
