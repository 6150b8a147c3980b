"""What the lock says of one name, in sentences, each with its source and the file it came from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from overnight.ceilings import Ceilings
from overnight.facts import Provenance
from overnight.failures import BadInput
from overnight.harnessentry import HarnessEntry
from overnight.harnesses import HARNESSES
from overnight.layers import Layered
from overnight.lockfile import suggest
from overnight.usage import Usage


@dataclass(frozen=True)
class Said:
    """One sentence. `place` is the fact's path in the lock, `layer` the file that won, `provenance` None for a sum."""

    words: str
    place: str
    layer: str
    provenance: Provenance | None = None


def explain(of: Layered, name: str) -> list[Said]:
    """All that is known of a provider, a harness, `provider/harness`, a variable or a trap.

    Raises:
        BadInput: the lock knows no such name; near ones are offered.
    """
    lock = of.lock
    provider, slash, harness = name.partition("/")
    if name in lock.known_bad:
        return list(_trap(of, name))
    if slash and (provider in lock.providers or provider in lock.environment_only):
        return list(
            _cloud_pair(of, provider, harness) if provider in lock.environment_only else _pair(of, provider, harness)
        )
    if name in lock.providers:
        return list(_provider(of, name))
    if name in lock.environment_only:
        entry = lock.environment_only[name]
        return [said for harness in entry.harnesses for said in _cloud_pair(of, name, harness)]
    if name in lock.harnesses:
        return list(_harness(of, name))
    found = list(_variable(of, name))
    if found:
        return found
    known = [*lock.providers, *lock.environment_only, *lock.harnesses, *lock.known_bad, *_variables(of)]
    known += [f"{each}/{way}" for each, entry in lock.providers.items() for way in entry.harnesses]
    raise BadInput("command line", "NAME", f"the lock has no {name!r}", suggest(name, known))


def _say(of: Layered, words: str, provenance: Provenance | None, *place: str) -> Said:
    return Said(words, ".".join(place), of.layer(*place), provenance)


def _provider(of: Layered, name: str) -> Iterator[Said]:
    entry, at = of.lock.providers[name], ("providers", name)
    yield _say(of, entry.title, None, *at, "title")
    for each, endpoint in entry.endpoints.items():
        words = f"requests go to {endpoint.chats}"
        words += "; the address is yours to set" if endpoint.is_yours else ""
        yield _say(of, words, endpoint.provenance, *at, "endpoints", each)
    for each, url in entry.other_urls.items():
        words = f"not for these harnesses: {url.url}, speaks {url.speaks}{_after(url.note)}"
        yield _say(of, words, url.provenance, *at, "other_urls", each)
    for header, accepts in entry.headers.items():
        yield _say(of, f"a key in {header.wire}: {accepts.accepted}", accepts.provenance, *at, "headers", header.value)
    for model, fact in entry.models.items():
        also = f", answers as {' or '.join(fact.answers_as)} too" if fact.answers_as else ""
        yield _say(of, f"model {model}{also}", fact.provenance, *at, "models", model)
    for probe in entry.free_probes:
        proves = f"proves {', '.join(probe.proves)}" if probe.proves else "proves nothing"
        good = f"; good when {', '.join(f'{k} is {v}' for k, v in probe.good.items())}" if probe.good else ""
        words = f"costs nothing: {probe.method} {probe.url}, {proves}{good}{_after(probe.note)}"
        yield _say(of, words, probe.provenance, *at, "free_probes")
    if entry.errors:
        kinds = ", ".join(sorted({rule.kind for rule in entry.errors}))
        yield _say(of, f"{len(entry.errors)} rules read its answers: {kinds}", None, *at, "errors")
    yield _say(
        of, f"unattended use: {entry.terms.headless}{_after(entry.terms.note)}", entry.terms.provenance, *at, "terms"
    )
    if entry.key:
        begins = f"keys begin with {' or '.join(entry.key.prefixes)}" if entry.key.prefixes else "keys"
        yield _say(of, f"{begins}{_after(entry.key.note)}", entry.key.provenance, *at, "key")
    if entry.limits:
        words = "; ".join(_most(entry.limits))
        yield _say(of, words, entry.limits.provenance, *at, "limits")
    yield from _charges(of, name)
    for harness in entry.harnesses:
        yield _say(
            of, f"reached by {harness}: overnight lock explain {name}/{harness}", None, *at, "harnesses", harness
        )


def _most(limits: Ceilings) -> Iterator[str]:
    for each, whose in ((limits, "in all"), (limits.each_key, "with each key")):
        if each.concurrent is not None:
            yield f"{each.concurrent} requests at the same time {whose}"
        if each.requests is not None:
            yield f"{each.requests} requests in {each.per_s:g} s {whose}"


def _charges(of: Layered, name: str) -> Iterator[Said]:
    """What it takes, and when it takes more."""
    entry, at = of.lock.providers[name], ("providers", name)
    for model, fact in entry.models.items():
        if fact.rates is not None:
            sorts = {sort: getattr(fact.rates, sort) for sort in Usage.model_fields}
            told = ", ".join(f"{sort.replace('_', ' ')} {rate:g}" for sort, rate in sorts.items() if rate is not None)
            words = f"{model} costs {fact.rates.currency} per million tokens: {told}"
            yield _say(of, words, fact.rates.provenance, *at, "models", model, "rates")
    for rule in entry.peak:
        yield _say(of, f"peak hours: {rule}{_after(rule.note)}", rule.provenance, *at, "peak")
    for harness in entry.priced_by:
        yield _say(of, f"what {harness} says a run cost is its price", None, *at, "priced_by")


def _pair(of: Layered, provider: str, harness: str) -> Iterator[Said]:
    lock = of.lock
    entry = lock.provider(provider, where="command line", field="NAME")
    if harness not in entry.harnesses:
        problem = f"unknown harness for provider {provider} {harness!r}"
        raise BadInput("command line", "NAME", problem, suggest(harness, entry.harnesses))
    wiring, at = entry.harnesses[harness], ("providers", provider, "harnesses", harness)
    sends = HARNESSES[harness].HEADER_OF if harness in HARNESSES else {}
    for variable in wiring.key_variables:
        header = sends.get(variable)
        accepts = entry.headers.get(header) if header else None
        words = f"{variable} carries the key"
        words += f", sent as {header.wire}; the provider takes it: {accepts.accepted}" if header and accepts else ""
        place = ("providers", provider, "headers", header.value) if header else (*at, "set", variable)
        yield _say(of, words, accepts.provenance if accepts else wiring.provenance, *place)
    url = entry.endpoints[wiring.endpoint]
    yield _say(of, f"{{base_url}} is {url.url}", url.provenance, "providers", provider, "endpoints", wiring.endpoint)
    for name, value in wiring.set.items():
        yield _say(of, f"{name} = {value}", wiring.provenance, *at, "set", name)
    for name, why in wiring.empty.items():
        yield _say(of, f"{name} is set to nothing: {why}", wiring.provenance, *at, "empty", name)
    for name, why in wiring.absent.items():
        yield _say(of, f"{name} must not exist: {why}", wiring.provenance, *at, "absent", name)
    if harness in lock.harnesses:
        yield from _settings(of, harness, lock.harnesses[harness])
    for name, trap in lock.known_bad.items():
        match = trap.match
        ours = (not match.harnesses or harness in match.harnesses) and provider not in match.not_providers
        if ours and (not match.providers or provider in match.providers):
            yield _say(of, f"trap {name}: {match.words}", trap.provenance, "known_bad", name)


def _cloud_pair(of: Layered, name: str, harness: str) -> Iterator[Said]:
    entry = of.lock.environment_only[name]
    if harness not in entry.harnesses:
        problem = f"unknown harness for {name} {harness!r}"
        raise BadInput("command line", "NAME", problem, suggest(harness, entry.harnesses))
    wiring, at = entry.harnesses[harness], ("environment_only", name, "harnesses", harness)
    yield _say(
        of, f"{entry.title}: environment-only, no run is started with it", None, "environment_only", name, "title"
    )
    yield _say(of, f"sent as {wiring.wire}", wiring.provenance, *at, "wire")
    for variable, value in wiring.set.items():
        yield _say(of, f"{variable} = {value}", wiring.provenance, *at, "set", variable)
    for variable, what in wiring.yours.items():
        yield _say(of, f"{variable} is yours to set: {what}", wiring.provenance, *at, "yours", variable)
    for model, fact in entry.models.items():
        yield _say(of, f"model {model}", fact.provenance, "environment_only", name, "models", model)


def _harness(of: Layered, name: str) -> Iterator[Said]:
    entry, at = of.lock.harnesses[name], ("harnesses", name)
    for version, fact in entry.versions.items():
        hangs = f"; hangs with {', '.join(fact.hangs_with)}" if fact.hangs_with else ""
        words = f"version {version} is known {fact.status}{_after(fact.note)}{hangs}"
        yield _say(of, words, fact.provenance, *at, "versions", version)
    for flag in entry.flags:
        yield _say(of, f"started with {flag}", entry.provenance, *at, "flags")
    for each, note in entry.notes.items():
        yield _say(of, f"{each}: {note.what}", note.provenance, *at, "notes", each)
    yield from _settings(of, name, entry)
    for variable, span in entry.ranges.items():
        ends = " and ".join(
            f"{word} {end:g} {span.unit}"
            for word, end in (("from", span.least), ("up to", span.most))
            if end is not None
        )
        yield _say(of, f"{variable} works {ends}: {span.what}", span.provenance, *at, "ranges", variable)
    if entry.stdin:
        words = f"standard input: {entry.stdin.must_be}; left open, {entry.stdin.otherwise}"
        yield _say(of, words, entry.stdin.provenance, *at, "stdin")
    for path, shadow in entry.shadows.items():
        stopped = f"; stopped by {shadow.stopped_by}" if shadow.stopped_by else ""
        words = f"{path} can bring {', '.join(shadow.carries)} ({shadow.wins}){stopped}"
        yield _say(of, words, shadow.provenance, *at, "shadows", path)


def _settings(of: Layered, name: str, entry: HarnessEntry) -> Iterator[Said]:
    at = ("harnesses", name)
    for variable, value in entry.env.items():
        yield _say(of, f"{variable} = {value}", entry.provenance, *at, "env", variable)
    for variable, why in entry.absent.items():
        yield _say(of, f"{variable} must not exist: {why}", entry.provenance, *at, "absent", variable)
    if entry.timing:
        words = f"waits {entry.timing.longest_s:g} s in silence at most"
        yield _say(of, words, entry.provenance, *at, "timing")


def _trap(of: Layered, name: str) -> Iterator[Said]:
    trap, at = of.lock.known_bad[name], ("known_bad", name)
    yield _say(of, f"{trap.weight}: {trap.match.words}", trap.provenance, *at, "match")
    for field, value in trap.match.model_dump(mode="json", exclude_defaults=True, exclude={"words"}).items():
        shown = ", ".join(value) if isinstance(value, list) else value
        yield _say(of, f"seen by {field.replace('_', ' ')}: {shown}", trap.provenance, *at, "match", field)
    yield _say(of, f"why: {trap.why}", trap.provenance, *at, "why")
    yield _say(of, f"mend: {trap.mend}", trap.provenance, *at, "mend")
    yield _say(of, f"breaks: {trap.breaks}", trap.provenance, *at, "breaks")


def _variable(of: Layered, name: str) -> Iterator[Said]:
    """What a variable is for, pairs that use it alike in one sentence."""
    lock = of.lock
    for harness, module in HARNESSES.items():
        if name in module.HEADER_OF and harness in lock.harnesses:
            words = f"{harness} sends its value as {module.HEADER_OF[name].wire}"
            yield _say(of, words, lock.harnesses[harness].provenance, "harnesses", harness)
    uses: dict[tuple[str, str], list[str]] = {}
    for provider, harness, use, place in _uses(of, name):
        uses.setdefault((f"{harness}: {use}", of.layer(*place)), []).append(provider)
    for (use, layer), providers in uses.items():
        yield Said(f"{use}, for {', '.join(providers)}", f"providers.*.harnesses.*.{name}", layer)
    for harness, entry in lock.harnesses.items():
        at = ("harnesses", harness)
        for said in _settings(of, harness, entry):
            if said.place.endswith(f".{name}"):
                yield Said(f"{harness}: {said.words}", said.place, said.layer, said.provenance)
        if name in entry.notes:
            yield _say(of, f"{harness}: {entry.notes[name].what}", entry.notes[name].provenance, *at, "notes", name)
        if name in entry.ranges:
            yield _say(of, f"{harness}: {entry.ranges[name].what}", entry.ranges[name].provenance, *at, "ranges", name)
    for trap_id, trap in lock.known_bad.items():
        if name in (*trap.match.variables, *trap.match.together):
            yield _say(of, f"trap {trap_id}: {trap.match.words}", trap.provenance, "known_bad", trap_id)


def _uses(of: Layered, name: str) -> Iterator[tuple[str, str, str, tuple[str, ...]]]:
    for provider, entry in of.lock.providers.items():
        for harness, wiring in entry.harnesses.items():
            at = ("providers", provider, "harnesses", harness)
            if name in wiring.set:
                yield provider, harness, f"set to {wiring.set[name]}", (*at, "set", name)
            if name in wiring.empty:
                yield provider, harness, f"set to nothing, {wiring.empty[name]}", (*at, "empty", name)
            if name in wiring.absent:
                yield provider, harness, f"must not exist, {wiring.absent[name]}", (*at, "absent", name)
    for provider, cloud in of.lock.environment_only.items():
        for harness, way in cloud.harnesses.items():
            at = ("environment_only", provider, "harnesses", harness)
            if name in way.set:
                yield provider, harness, f"set to {way.set[name]}", (*at, "set", name)
            if name in way.yours:
                yield provider, harness, f"yours to set, {way.yours[name]}", (*at, "yours", name)


def _variables(of: Layered) -> Iterable[str]:
    for entry in of.lock.providers.values():
        for wiring in entry.harnesses.values():
            yield from (*wiring.set, *wiring.empty, *wiring.absent)
    for harness in of.lock.harnesses.values():
        yield from (*harness.env, *harness.absent)


def _after(note: str) -> str:
    return f"; {note}" if note else ""
