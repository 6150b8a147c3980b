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
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from overnight.failures import BadInput, FailureKind

T = TypeVar("T")

DEFAULT_LOCK = Path(__file__).resolve().parent.parent / "providers.lock.json"
LOCK_VARIABLE = "OVERNIGHT_LOCK"


class Header(StrEnum):
    """How a key travels on the wire."""

    BEARER = "bearer"
    X_API_KEY = "x-api-key"

    @property
    def wire(self) -> str:
        """The header as HTTP shows it."""
        return "Authorization: Bearer" if self is Header.BEARER else "x-api-key"

    def carry(self, key: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {key}"} if self is Header.BEARER else {"x-api-key": key}


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Provenance(_Entry):
    """Where a fact comes from. `unverified` facts are used and reported as such."""

    source: str = Field(description="Document, page or measurement")
    date: date
    confidence: Literal["official", "measured", "third-party", "inferred", "unverified"]


class Fact(_Entry):
    provenance: Provenance


class Endpoint(Fact):
    """A base URL as harnesses want it: no `/v1` at the end unless the provider's path has one."""

    url: str = Field(pattern=r"^https?://[^\s\"']*[^\s\"'/]$", description="Without a slash at the end")


class Accepts(Fact):
    """Whether the provider takes the key in this header."""

    accepted: Literal["yes", "no", "likely", "unverified"]


class Model(Fact):
    """One model id, spelled exactly. `answers_as` are the ids the provider may put into its answers for it."""

    answers_as: tuple[str, ...] = ()


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


class Ceiling(Fact):
    """What the provider allows one account, where it publishes a number."""

    concurrent: Annotated[int, Field(ge=1, description="Requests at the same time")]


class KeyShape(Fact):
    """What keys of this provider look like. A key that does not match is warned about, never refused."""

    prefixes: tuple[str, ...] = ()
    note: str = ""


class Timing(_Entry):
    """How long the harness itself waits for the provider before it says so.

    The longest honest silence is `request_timeout_s * (retries + 1) + backoff_s`.
    """

    request_timeout_s: Annotated[float, Field(gt=0)]
    retries: Annotated[int, Field(ge=0)]
    backoff_s: Annotated[float, Field(ge=0)]

    @property
    def longest_s(self) -> float:
        return self.request_timeout_s * (self.retries + 1) + self.backoff_s


class Wiring(Fact):
    """How one harness reaches one provider.

    `set` values may hold `{base_url}`, `{model}` and exactly one variable holds
    `{key}`. `empty` are set to the empty string, `absent` must not exist; both
    map a name to the reason.
    """

    endpoint: str = Field(description="Key in the provider's `endpoints`")
    set: dict[str, str]
    empty: dict[str, str] = {}
    absent: dict[str, str] = {}
    flags: tuple[str, ...] = ()
    timing: Timing | None = Field(None, description="Overrides the harness's own")

    @property
    def key_variables(self) -> tuple[str, ...]:
        return tuple(name for name, value in self.set.items() if "{key}" in value)


class Provider(_Entry):
    title: str
    endpoints: dict[str, Endpoint]
    headers: dict[Header, Accepts]
    models: dict[str, Model]
    probe: Probe
    errors: tuple[ErrorRule, ...] = ()
    terms: Terms
    key: KeyShape | None = None
    limits: Ceiling | None = Field(None, description="None where nothing is published: no limit is guessed")
    harnesses: dict[str, Wiring]

    @model_validator(mode="after")
    def _endpoints_exist(self) -> Provider:
        for name, wiring in self.harnesses.items():
            if wiring.endpoint not in self.endpoints:
                raise ValueError(f"harness {name}: unknown endpoint. {suggest(wiring.endpoint, self.endpoints)}")
        return self


class Version(Fact):
    status: Literal["good", "bad"]
    note: str = ""


class ProbeMode(_Entry):
    """What differs when the harness is started as a probe: flags added, waits shortened, wall limit."""

    flags: tuple[str, ...] = ()
    env: dict[str, str] = {}
    timing: Timing
    total_s: float


class HarnessEntry(Fact):
    """What holds for a harness whatever the provider.

    `env` values may hold `{request_timeout_ms}`, `{request_timeout_s}` and
    `{retries}`. `timing` is None for a harness that cannot be told how long to wait.
    """

    versions: dict[str, Version]
    flags: tuple[str, ...] = ()
    env: dict[str, str] = {}
    absent: dict[str, str] = {}
    timing: Timing | None = None
    probe: ProbeMode


class ProviderLock(_Entry):
    """The whole lock file, schema version 1."""

    schema_: Literal[1] = Field(alias="schema")
    as_of: date
    providers: dict[str, Provider]
    harnesses: dict[str, HarnessEntry]

    def provider(self, name: str, *, where: str, field: str) -> Provider:
        return _found(self.providers, name, "provider", where, field)

    def harness(self, name: str, *, where: str, field: str) -> HarnessEntry:
        return _found(self.harnesses, name, "harness", where, field)

    def wiring(self, provider: str, harness: str, *, where: str, field: str) -> Wiring:
        """How `harness` reaches `provider`.

        Raises:
            BadInput: the lock has no such pair; the message lists the harnesses that can.
        """
        entry = self.provider(provider, where=where, field=field)
        return _found(entry.harnesses, harness, f"harness for provider {provider}", where, field)

    def model(self, provider: str, model: str, *, where: str, field: str) -> Model:
        entry = self.provider(provider, where=where, field=field)
        return _found(entry.models, model, f"model of provider {provider}", where, field)

    def concurrency(self) -> dict[str, int]:
        """Requests at the same time that each provider allows one account; only those with a published number."""
        return {name: entry.limits.concurrent for name, entry in self.providers.items() if entry.limits is not None}


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
