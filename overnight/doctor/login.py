"""The same question as a person would ask it: under the login environment of the host's user, with the user's files."""

from __future__ import annotations

from dataclasses import dataclass

from overnight.doctor.asking import ONHOST, AgentSaid, Asker, Setting
from overnight.doctor.records import Call, Finding, Shadow
from overnight.events import Exited, Killed, Output
from overnight.failures import Evidence, Failure, FailureKind, fail
from overnight.launch import Launch
from overnight.outcome import process_failure
from overnight.preflight import QUESTION, not_health
from overnight.watch import Watch

_K = FailureKind
_SHOWN = 6


@dataclass(frozen=True)
class Compared:
    """Both outcomes side by side; `finding` is None when they are the same."""

    call: Call
    finding: Finding | None


def compare(asker: Asker, setting: Setting, clean: AgentSaid, shadows: tuple[Shadow, ...]) -> Compared:
    """Ask once more with all that the login brings, and hold the outcome against that of our own start.

    The user's own key may be used for it, at the user's own base URL: it is
    what happens when this user types the agent's name.

    Raises:
        HostError: the connection failed.
    """
    question, harness = clean.question, clean.question.harness
    entry = setting.lock.harnesses[question.plan.route.harness]
    launch = Launch(
        executable=question.plan.argv[0],
        instruction=QUESTION.format(nonce=question.nonce),
        model=question.plan.route.model,
        flags=entry.probe.flags,
    )
    own = [name for name, value in entry.env.items() if "{base_url}" not in value]  # its key must not go to our address
    waits = {name: value for name, value in question.plan.env.values().items() if name in own}
    order = {"argv": list(harness.probe_argv(launch)), "env": waits, "timeout_s": entry.probe.total_s}
    said = asker.station.remote.script(ONHOST, {"command": order}, entry.probe.total_s + 15)
    watch = Watch(question.plan, harness, question.provider.errors)
    watch.take(Output("out", 0, said["out"].encode()))
    watch.take(Output("err", 0, said["err"].encode()))
    failure = _failure(asker, watch, said)
    if failure is None:
        failure = not_health(question, watch)
    seen = "the word came back" if failure is None else str(failure.evidence[0])
    call = Call(
        by="login", kind=None if failure is None else failure.kind, seen=_masked(seen, asker), seconds=said["seconds"]
    )
    asker.calls.append(call)
    return Compared(call, _finding(clean, call, _brought(shadows, question.plan.route.harness)))


def _failure(asker: Asker, watch: Watch, said: dict[str, object]) -> Failure | None:
    seconds, code = float(str(said["seconds"])), said["code"]
    if said["timed_out"]:
        watch.take(Killed("total_s", seconds))
    elif isinstance(code, int):
        watch.take(Exited(code, None, seconds))
    else:
        return fail(_K.UNKNOWN, Evidence(source="host", seen=str(said["err"]), where=asker.station.name))
    return process_failure(watch.transcript, watch.said(), None, {})


def _finding(clean: AgentSaid, login: Call, brought: str) -> Finding | None:
    if login.ok == clean.call.ok:
        return None
    if login.ok:
        words = (
            f"works by accident: started by hand under the user's login the agent gets through, "
            f"as runs start it it does not ({clean.call.seen}); the login brings {brought}"
        )
        mend = "do not rely on the login: mend the lock, which is all that a run gets"
        return Finding(id="works-by-accident", weight="error", seen=words, mend=mend)
    words = (
        f"as runs start it the agent gets through; started by hand under the user's login it does not "
        f"({login.seen}); the login brings {brought}"
    )
    mend = "nothing for runs; a launcher of your own needs the same clean environment: see `overnight lock env`"
    return Finding(id="fails-by-hand", weight="warning", seen=words, mend=mend)


def _brought(shadows: tuple[Shadow, ...], harness: str) -> str:
    """What of the login reaches this harness, each with its place."""
    found = [
        f"{each.name} ({each.source}{f':{each.line}' if each.line else ''})"
        for each in shadows
        if (not each.harnesses or harness in each.harnesses) and not each.source.startswith("./")
    ]
    shown = ", ".join(dict.fromkeys(found[:_SHOWN]))
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f"{shown}{more}" or "nothing that could be seen"


def _masked(text: str, asker: Asker) -> str:
    return text.replace(asker.key, "*" * len(asker.key))
