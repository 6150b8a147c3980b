"""Rules about the address and the model."""

from __future__ import annotations

import re
from collections.abc import Iterator

from overnight.launchers.case import Case, finding, in_value, trap_with
from overnight.launchers.finding import Edit, Finding
from overnight.launchers.follow import Bound
from overnight.launchers.steps import HOLE, Place, Value

_BRACKETS = re.compile(r"\[\w+\]$")


def check(case: Case) -> Iterator[Finding]:
    yield from _address(case)
    for name in case.route.names("{model}"):
        bound = case.set(name)
        if bound is not None and bound.literal:
            yield from _model(case, bound.literal, bound.step.place, in_value(bound, *_spelled(case, bound.literal)))
    flag = _flag(case)
    if flag is not None:
        old, new = _spelled(case, flag[0])
        at = flag[1].place.start + flag[1].place.raw.find(old)
        yield from _model(case, flag[0], flag[1].place, (Edit(Place(flag[1].place.text, at, at + len(old)), new),))


def _address(case: Case) -> Iterator[Finding]:
    name = case.route.url_variable
    bound = case.set(name) if name else None
    if name is None or bound is None or bound.literal is None or bound.literal.rstrip("/") == case.route.url:
        return
    url = bound.literal.strip().rstrip("/")
    suffix = next((s for s in _suffixes(case) if url.endswith(s)), None)
    other = case.lock.other_urls(case.route.provider).get(url)
    certain = True
    rule = trap_with(case.lock, "url_suffixes", suffix or "", "path-in-base-url")
    what = f"the address ends in {suffix}, which {case.route.harness} adds itself"
    if suffix is None or url.removesuffix(suffix) != case.route.url:
        rule = trap_with(case.lock, "rule", "other-url", "address-of-another-api")
        what = f"{url} is another address of {case.route.provider}"
        what += f": it speaks {other['speaks']}" if other else "'s host, and no endpoint that the lock knows"
        certain = other is not None and other["speaks"] != "anthropic"
        if other is None:
            rule = ("address-not-in-lock", {})
    yield finding(
        rule,
        bound.step.place,
        what,
        (
            f"providers.{case.route.provider}.endpoints.{case.route.wiring['endpoint']}.url",
            case.route.endpoint["provenance"],
        ),
        why="" if rule[1] else "a request to a place the provider does not have is a 404, or a web page",
        mend=f"write {case.route.url}",
        edits=in_value(bound, bound.literal, case.route.url),
        certain=certain,
        weight="error" if certain else "warning",
    )


def _suffixes(case: Case) -> Iterator[str]:
    """What harnesses add by themselves, longest first."""
    found = {suffix for trap in case.lock.traps.values() for suffix in trap["match"].get("url_suffixes", ())}
    return iter(sorted(found, key=len, reverse=True))


def _spelled(case: Case, model: str) -> tuple[str, str]:
    """A model id as written, a `[1m]` at the end aside, and as the lock spells it; the same twice if it does not."""
    plain = _BRACKETS.sub("", model)
    return plain, next((known for known in case.route.models if known.lower() == plain.lower()), plain)


def _model(case: Case, model: str, place: Place, edits: tuple[Edit, ...]) -> Iterator[Finding]:
    plain, spelled = _spelled(case, model)
    if plain in case.route.models:
        return
    if spelled != plain:
        fact = (f"providers.{case.route.provider}.models.{spelled}", case.route.models[spelled]["provenance"])
        rule = trap_with(case.lock, "rule", "model-spelling", "model-in-wrong-case")
        yield finding(
            rule, place, f"{plain} is spelled {spelled}", fact, mend=f"write {spelled}", edits=edits, certain=True
        )
        return
    owners = sorted(name for name, entry in case.lock.providers.items() if plain in entry["models"])
    if owners:  # an id that nobody knows may simply be newer than the lock
        yield finding(
            trap_with(case.lock, "rule", "model-unknown", "model-not-in-lock"),
            place,
            f"{plain} is a model of {', '.join(owners)}, and the lock does not know it of {case.route.provider}",
            (f"providers.{case.route.provider}.models", case.lock.providers[owners[0]]["models"][plain]["provenance"]),
            weight="warning",
        )


def _flag(case: Case) -> tuple[str, Value] | None:
    """`--model NAME` on the agent's command line."""
    launch = case.situation.launch
    if launch is None or not case.agent:
        return None
    words = case.situation.words
    for at, word in enumerate(words):
        if word == "--model" and at + 1 < len(words) and HOLE not in words[at + 1]:
            return words[at + 1], launch.words[at + 1]
        if word.startswith("--model=") and HOLE not in word:
            return word.removeprefix("--model="), launch.words[at]
    return None


def is_number_of(bound: Bound) -> float | None:
    """The value as a number, or None."""
    text = (bound.literal or "").strip()
    return float(text) if re.fullmatch(r"-?\d+(\.\d+)?", text) else None
