"""The lock: every fact about providers and harnesses that a run is generated from.

`providers.lock.json` is the only place that knows which variable carries which
key to which URL. Nothing compares itself with the lock; everything is built
from it.
"""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError, model_validator

from overnight.ceilings import Ceilings
from overnight.facts import CHATS, Entry, Fact, VariableName
from overnight.facts import Header as Header  # as: readers of the lock take its words from here
from overnight.facts import Provenance as Provenance  # as: above
from overnight.facts import Speaks as Speaks  # as: above
from overnight.failures import BadInput, FailureKind
from overnight.gauge import Gauge
from overnight.harnessentry import HarnessEntry as HarnessEntry  # as: above
from overnight.harnessentry import Timing as Timing  # as: above
from overnight.lockplace import DEFAULT_LOCK as DEFAULT_LOCK  # as: above
from overnight.lockplace import LOCK_VARIABLE as LOCK_VARIABLE  # as: above
from overnight.lockplace import OVERLAY as OVERLAY  # as: above
from overnight.tariff import Peak, Rates
from overnight.traps import Trap, TrapId

T = TypeVar("T")


class Endpoint(Fact):
    """A base URL as harnesses want it: no `/v1` at the end unless the provider's path has one.

    One that holds `{host}` is yours to set, whole, in an overlay. `speaks` is
    the API there, in which the direct probe asks too.
    """

    url: str = Field(pattern=r"^https?://[^\s\"']*[^\s\"'/]$", description="Without a slash at the end")
    speaks: Speaks = "anthropic"

    @property
    def chats(self) -> str:
        """The address that a harness asks in the end."""
        return self.url + CHATS[self.speaks]

    @property
    def is_yours(self) -> bool:
        """Whether the user has still to say where it is."""
        return "{host}" in self.url


class OtherUrl(Fact):
    """An address of the provider that these harnesses cannot use, or not for this provider's keys."""

    url: str = Field(pattern=r"^https?://[^\s\"']*[^\s\"'/]$", description="Without a slash at the end")
    speaks: Literal["openai-chat", "openai-responses", "anthropic"]
    note: str = ""


class FreeProbe(Fact):
    """A call that costs nothing and proves less than a message does.

    `good` is what the body of a good answer says, by dotted path; where it is
    not empty the HTTP status alone proves nothing. `key_as` "none" marks a call
    that is answered without any key: a probe that passes wrongly.
    """

    method: Literal["GET", "POST"] = "GET"
    url: str
    key_as: Literal["bearer", "x-api-key", "raw", "none"]
    proves: tuple[Literal["auth", "model", "billing", "quota"], ...]
    good: dict[str, str | int | bool] = Field({}, description="By dotted path in the body")
    gauges: tuple[Gauge, ...] = Field((), description="Where a good body says how much is left")
    note: str = ""


class Accepts(Fact):
    """Whether the provider takes the key in this header."""

    accepted: Literal["yes", "no", "likely", "unverified"]


class Model(Fact):
    """One model id, spelled exactly. `answers_as` are the ids the provider may put into its answers for it."""

    answers_as: tuple[str, ...] = ()
    rates: Rates | None = Field(None, description="None where no price is known: the cost of its runs is unknown then")


class Probe(Fact):
    """The cheapest authenticated call. `proves` says what a good answer proves; a chat probe proves all."""

    method: Literal["GET", "POST"]
    path: str = Field(description="Appended to the endpoint's URL")
    proves: tuple[Literal["auth", "model", "billing", "quota"], ...]


class ErrorRule(Fact):
    """Maps an answer of the provider to a kind. A rule matches when every condition it states holds.

    `codes` are compared with the body's own code fields as strings; `words`
    are lower-case substrings of the error message the provider wrote.
    """

    kind: FailureKind
    http: tuple[int, ...] = ()
    codes: tuple[str, ...] = ()
    words: tuple[str, ...] = ()


class Terms(Fact):
    """What the provider's terms say of unattended use."""

    headless: Literal["allowed", "restricted", "forbidden", "unknown"]
    note: str


class Allowed(Ceilings, Fact):
    """What the provider allows, where it publishes a number: of an account, or of each key."""

    @model_validator(mode="after")
    def _says_something(self) -> Allowed:
        if not any(each.concurrent or each.requests for each in (self, self.each_key)):
            raise ValueError("gives no number: write concurrent or requests")
        return self


class KeyShape(Fact):
    """What keys of this provider look like. A key that does not match is warned about, never refused."""

    prefixes: tuple[str, ...] = ()
    note: str = ""


class Wiring(Fact):
    """How one harness reaches one provider.

    `set` values may hold `{base_url}`, `{model}` and exactly one variable holds
    `{key}`. `empty` are set to the empty string, `absent` must not exist; both
    map a name to the reason.
    """

    endpoint: str = Field(description="Key in the provider's `endpoints`")
    set: dict[VariableName, str]
    empty: dict[VariableName, str] = Field({}, description="Set to nothing, each with the reason")
    absent: dict[VariableName, str] = Field({}, description="Must not exist, each with the reason")
    flags: tuple[str, ...] = ()
    timing: Timing | None = Field(None, description="Overrides the harness's own")

    @property
    def key_variables(self) -> tuple[str, ...]:
        return tuple(name for name, value in self.set.items() if "{key}" in value)


class CloudWiring(Fact):
    """How one harness is told to use a cloud's own door. See EnvironmentOnly for what `set` and `yours` hold."""

    set: dict[VariableName, str]
    yours: dict[VariableName, str] = Field({}, description="Names only the user can fill, with what belongs there")
    wire: str = Field(description="How the request is signed, in words")


class Provider(Entry):
    title: str
    vendor: str = Field(
        "",
        description="Providers of one vendor with separate regions or plans share it; "
        "the doctor may try a refused key at them",
    )
    endpoints: dict[str, Endpoint]
    other_urls: dict[str, OtherUrl] = Field({}, description="Addresses that do not serve these harnesses")
    headers: dict[Header, Accepts]
    models: dict[str, Model]
    probe: Probe
    free_probes: tuple[FreeProbe, ...] = ()
    errors: tuple[ErrorRule, ...] = ()
    terms: Terms
    key: KeyShape | None = None
    limits: Allowed | None = Field(None, description="None where nothing is published: no limit is guessed")
    peak: tuple[Peak, ...] = Field((), description="Hours in which it takes more")
    priced_by: tuple[str, ...] = Field((), description="Harnesses of its own: what they say a run cost is its price")
    harnesses: dict[str, Wiring]

    @model_validator(mode="after")
    def _endpoints_exist(self) -> Provider:
        for name, wiring in self.harnesses.items():
            if wiring.endpoint not in self.endpoints:
                raise ValueError(f"harness {name}: unknown endpoint. {suggest(wiring.endpoint, self.endpoints)}")
        return self


class EnvironmentOnly(Entry):
    """A way in that needs no key of ours, or more than one: `overnight lock env` writes it, no run is started with it.

    `set` values may hold `{model}` and `{key}`; `yours` are names that only the
    user can fill, with what belongs there.
    """

    title: str
    harnesses: dict[str, CloudWiring]
    models: dict[str, Model]


class ProviderLock(Entry):
    """The whole lock file, schema version 1."""

    schema_: Literal[1] = Field(alias="schema")
    as_of: date
    providers: dict[str, Provider]
    harnesses: dict[str, HarnessEntry]
    environment_only: dict[str, EnvironmentOnly] = Field({}, description="Ways in that no run is started with")
    known_bad: dict[TrapId, Trap] = Field({}, description="Named traps, each with its mend")

    def provider(self, name: str, *, where: str, field: str) -> Provider:
        if name in self.environment_only:
            mend = f"overnight lock env {name} HARNESS writes what the agent needs, to start it yourself"
            raise BadInput(where, field, f"{name} is environment-only: no run is started with it", mend)
        return _found(self.providers, name, "provider", where, field)

    def harness(self, name: str, *, where: str, field: str) -> HarnessEntry:
        return _found(self.harnesses, name, "harness", where, field)

    def wiring(self, provider: str, harness: str, *, where: str, field: str) -> Wiring:
        """How `harness` reaches `provider`.

        Raises:
            BadInput: the lock has no such pair, and the message lists the harnesses that can; or the
                provider's address is the user's to set, and nobody did.
        """
        entry = self.provider(provider, where=where, field=field)
        wiring = _found(entry.harnesses, harness, f"harness for provider {provider}", where, field)
        endpoint = entry.endpoints[wiring.endpoint]
        if endpoint.is_yours:
            place = f"providers.{provider}.endpoints.{wiring.endpoint}.url"
            mend = f"In {OVERLAY}, set {place} to its address, e.g. {endpoint.url.replace('{host}', '10.0.0.5')}"
            raise BadInput(where, field, f"the address of {provider} is yours to set", mend)
        return wiring

    def model(self, provider: str, model: str, *, where: str, field: str) -> Model:
        entry = self.provider(provider, where=where, field=field)
        return _found(entry.models, model, f"model of provider {provider}", where, field)

    def concurrency(self) -> dict[str, int]:
        """Requests at the same time that each provider allows one account; only those with a published number."""
        given = {name: entry.limits.concurrent for name, entry in self.providers.items() if entry.limits is not None}
        return {name: allowed for name, allowed in given.items() if allowed is not None}


def _found(entries: dict[str, T], name: str, what: str, where: str, field: str) -> T:
    if name in entries:
        return entries[name]
    raise BadInput(where, field, f"unknown {what} {name!r}", suggest(name, entries))


def suggest(name: str, known: Iterable[str]) -> str:
    """A sentence that offers the nearest known names, or all of them when none is near."""
    names = sorted(known)
    lowered = {n.lower(): n for n in names}
    near = [lowered[n] for n in difflib.get_close_matches(name.lower(), lowered, n=3, cutoff=0.6)]
    if near:
        return f"Did you mean {' or '.join(near)}?"
    return f"Known: {', '.join(names) or 'none'}"


def place(given: Path | None, environ: Mapping[str, str]) -> Path:
    """Where the lock is: what was given, else the file OVERNIGHT_LOCK names, else the project's own."""
    named = environ.get(LOCK_VARIABLE)
    return given or (Path(named).expanduser() if named else DEFAULT_LOCK)


def load(path: Path = DEFAULT_LOCK) -> ProviderLock:
    """Read and check a lock file.

    Raises:
        BadInput: the file is missing, not JSON, or does not fit the schema; the first fault is named.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput(
            str(path), "file", error.strerror or "cannot be read", "Give the lock with --lock PATH"
        ) from error
    try:
        return ProviderLock.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "file"
        raise BadInput(str(path), field, first["msg"], "See providers.lock.schema.json for the shape") from error


def schema() -> dict[str, Any]:
    """The JSON Schema of a lock file, as `providers.lock.schema.json` holds it."""
    return ProviderLock.model_json_schema()


if __name__ == "__main__":  # python -m overnight.lockfile > providers.lock.schema.json
    sys.stdout.write(json.dumps(schema(), indent=2) + "\n")
