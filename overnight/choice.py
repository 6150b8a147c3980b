"""The routes a task may take as a user writes them: one, a list in order of preference, or any of some by weight."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator


def _no_boolean(value: object) -> object:
    """pydantic takes true for 1."""
    if isinstance(value, bool):
        raise ValueError("is true or false, a number is needed")
    return value


# bounds come first: behind a validator pydantic leaves them out of the JSON schema, and so a form would allow anything
Number = BeforeValidator(_no_boolean)
Whole = Annotated[int, Field(ge=1), Number]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False), Number]


class RouteSpec(BaseModel):
    """A route as written; what is left out comes from `defaults.route`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str | None = Field(None, description="A name under `hosts`")
    harness: str | None = Field(
        None,
        description="Agent's command line: claude-code, codex, copilot, goose, opencode, pi, qwen, aider, scripted",
    )
    provider: str | None = Field(None, description="Who serves the model, as the lock names it")
    model: str | None = Field(None, description="Exact model id from the lock")

    def over(self, below: RouteSpec) -> RouteSpec:
        """This route, with what it leaves out from another one."""
        said = {name: getattr(self, name) for name in RouteSpec.model_fields}
        return below.model_copy(update={name: value for name, value in said.items() if value is not None})


class WeightedRoute(RouteSpec):
    weight: Positive = Field(1, description="How often it is drawn, beside the others")


class RouteChoice(RouteSpec):
    """One route, or several: a list in order of preference, or any of some by weight."""

    any_of: tuple[WeightedRoute, ...] = Field(
        (), description="Several of these, each with a `weight`: a task draws one of them, the others stand in for it"
    )
    in_order: tuple[RouteSpec, ...] = ()  # what a list of routes is read as

    @model_validator(mode="after")
    def _one_shape(self) -> RouteChoice:
        if self.any_of and self.in_order:
            raise ValueError("any_of and a list stand side by side; write one of them")
        if (self.any_of or self.in_order) and self.alone.model_dump(exclude_none=True):
            raise ValueError("any_of stands beside host, harness, provider or model; write those inside it")
        return self

    @property
    def alone(self) -> RouteSpec:
        """What it says as a single route."""
        return RouteSpec(host=self.host, harness=self.harness, provider=self.provider, model=self.model)

    @property
    def parts(self) -> tuple[RouteSpec, ...]:
        return self.any_of or self.in_order


def listed(value: object) -> object:
    """A list of routes in the shape that `RouteChoice` has for it."""
    if isinstance(value, list) and not value:
        raise ValueError("is an empty list; name a route")
    return {"in_order": value} if isinstance(value, list) else value


def drawn(weights: Sequence[float], seed: str) -> list[int]:
    """An order of so many things, each first as often as its weight says; for one seed always the same."""

    def wait(index: int) -> float:
        seen = hashlib.sha256(f"{seed} {index}".encode()).digest()
        return -math.log((int.from_bytes(seen[:8], "big") + 1) / 2**64) / weights[index]

    return sorted(range(len(weights)), key=wait)  # the shortest of exponential waits
