"""Rules about the variable that carries the key."""

from __future__ import annotations

from collections.abc import Iterator

from overnight.launchers.case import Case, finding, is_read_elsewhere, trap_with
from overnight.launchers.finding import Edit, Finding
from overnight.launchers.follow import Bound
from overnight.launchers.steps import Place


def check(case: Case) -> Iterator[Finding]:
    key = case.route.key_variable
    wrong = [] if case.set(key) else list(_wrong(case, key))
    yield from wrong
    yield from _unset(case, key, wrong)
    yield from _both(case, key)
    if case.agent:
        yield from _not_exported(case)
        yield from _not_surviving(case)
        yield from _login(case)


def _wrong(case: Case, key: str) -> Iterator[Finding]:
    """The key is in a variable whose header nobody says the provider takes, and the right one is not set."""
    absent = case.lock.harnesses[case.route.harness].get("absent", {})
    theirs = case.lock.key_variables[case.route.harness]
    for name in sorted(case.lock.secret_names - {key}):
        bound = case.set(name)
        if bound is None or (name not in theirs and name not in absent):
            continue
        accepted = case.route.accepts(name)
        if accepted is not None and accepted[1] == "yes":
            continue
        how = (
            f"it travels as {accepted[0]}, {_taken(case.route.provider, accepted[1])} ({accepted[2]['confidence']})"
            if accepted is not None
            else f"{case.route.harness} does not read it"
        )
        yield finding(
            trap_with(case.lock, "rule", "key-variable", "key-in-wrong-variable"),
            bound.step.place,
            f"the key of {case.route.provider} is in {name}; {how}",
            (f"{case.route.fact}.set.{key}", case.route.wiring["provenance"]),
            mend=f"put the key into {key}",
            edits=(Edit(_name(bound.step.place), key),),
            certain=not is_read_elsewhere(bound.step.place, name) and key not in case.vars,
        )


def _taken(provider: str, accepted: str) -> str:
    return f"which {provider} refuses" if accepted == "no" else f"and that {provider} takes that is {accepted} at best"


def _name(place: Place) -> Place:
    """The name alone, without the quotes of formats that quote names."""
    quote = 1 if place.raw[:1] in ("'", '"') else 0
    return Place(place.text, place.start + quote, place.end - quote)


def _unset(case: Case, key: str, wrong: list[Finding]) -> Iterator[Finding]:
    """The right variable is taken away: after it was set, or while the key is in the wrong one."""
    if key not in case.situation.way.gone:
        return
    step, had = case.situation.way.gone[key]
    if had is None and not wrong:
        return
    other = next(iter(case.route.wiring.get("empty", {})), None)
    before = "" if had is None or had.step.place.text is not step.place.text else f" set on line {had.step.place.line},"
    yield finding(
        ("right-variable-unset", {}),
        step.place,
        f"{key} is unset here;{before} it is the one that carries the key of {case.route.provider}",
        (f"{case.route.fact}.set.{key}", case.route.wiring["provenance"]),
        why="the agent starts without the key: a 401 that is retried for minutes, or a login prompt nobody sees",
        mend=f"unset {other} instead" if other else "leave it set",
        edits=(Edit(step.place, other),) if other else (),
        certain=bool(wrong) and all(each.certain for each in wrong),
    )


def _both(case: Case, key: str) -> Iterator[Finding]:
    if not case.set(key):
        return
    for name, reason in case.route.wiring.get("empty", {}).items():
        bound = case.set(name)
        if bound is not None:
            yield finding(
                trap_with(case.lock, "together", name, "both-key-variables"),
                bound.step.place,
                f"{name} and {key} are both set for {case.route.provider}",
                (f"{case.route.fact}.empty.{name}", case.route.wiring["provenance"]),
                why=reason,
                mend=f"empty {name}",
                edits=(Edit(bound.step.value.place, bound.step.empty),),
                certain=not is_read_elsewhere(bound.step.place, name),
            )


def _not_exported(case: Case) -> Iterator[Finding]:
    """Set in the script, never exported, and the agent is started by it."""
    if case.situation.way.reads_unknown:
        return
    for name in (case.route.url_variable, case.route.key_variable):
        bound = case.vars.get(name or "")
        if name and bound is not None and bound.text and not bound.exported and bound.step.exported is None:
            yield finding(
                ("not-exported", {}),
                bound.step.place,
                f"{name} is set and not exported, so the agent does not get it",
                (f"{case.route.fact}.set.{name}", case.route.wiring["provenance"]),
                why="a plain assignment stays in the shell, unless the variable came from outside: works by accident",
                mend="export it",
                edits=(Edit(Place(bound.step.place.text, bound.step.place.start, bound.step.place.start), "export "),),
                certain=True,
            )


def _not_surviving(case: Case) -> Iterator[Finding]:
    """`env -i` drops what its list does not name."""
    way = case.situation.way
    if way.clear is None or way.reads_unknown:
        return
    keys = [name for name in case.lock.key_variables[case.route.harness] if case.set(name)]
    for name in (case.route.url_variable, case.route.key_variable):
        lost: Bound | None = way.before.get(name or "")
        if name is None or lost is None or not lost.text or case.set(name) or name in way.gone:
            continue
        if name == case.route.key_variable and keys:
            continue
        end = way.clear.place.end
        yield finding(
            ("lost-in-clean-environment", {}),
            way.clear.place,
            f"{name} is set before and not passed on, so the agent for {case.route.provider} does not get it",
            (f"{case.route.fact}.set.{name}", case.route.wiring["provenance"]),
            why="a clean environment holds what its list names and nothing else",
            mend=f"pass {name} on by name",
            edits=(Edit(Place(way.clear.place.text, end, end), f' {name}="${name}"'),),
            certain=way.clear.place.raw in ("-i", "-", "--ignore-environment"),
        )


def _login(case: Case) -> Iterator[Finding]:
    """A login shell between the clean environment and the agent."""
    way = case.situation.way
    if way.clear is None or way.login is None or way.reads_unknown:
        return
    raw = way.login.place.raw
    plain = "" if raw in ("-l", "--login") else raw.replace("l", "", 1)
    yield finding(
        ("login-shell-after-clean", {}),
        way.login.place,
        "a login shell after env -i reads .profile and the files it names, and they can set these variables again",
        (f"{case.route.fact}.set", case.route.wiring["provenance"]),
        why="the environment looks clean and is not: another key or address comes back from HOME",
        mend="start the agent without a login shell",
        edits=(Edit(way.login.place, plain),) if plain else (),
    )
