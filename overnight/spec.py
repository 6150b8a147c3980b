"""What was asked: the shapes of a batch file, and the complete tasks made from it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from overnight.below import Below
from overnight.ceilings import Ceilings
from overnight.choice import Number, Positive, RouteChoice, Whole, drawn, listed
from overnight.failures import BadInput
from overnight.handover import Deliver, Guards
from overnight.lockfile import suggest
from overnight.route import Route
from overnight.session import Resumed

_NAME = re.compile(r"[a-z0-9]+([._-][a-z0-9]+)*")


def _name(text: str) -> str:
    """A text that may become part of a branch name and of folder names."""
    # git keeps the ending .lock for itself
    if not _NAME.fullmatch(text) or len(text) > 63 or text.endswith(".lock"):
        wanted = "lower-case letters and digits, single . _ - between them, at most 63, not ending in .lock"
        raise ValueError(f"does not fit a branch name: {wanted}")
    return text


def _no_option(text: str) -> str:
    if text.startswith("-"):
        raise ValueError("begins with -, which git would take for an option")
    return text


Peak = Literal["allow", "avoid"]
AUTHOR = "overnight <overnight@localhost>"
Name = Annotated[str, AfterValidator(_name)]
Argument = Annotated[str, AfterValidator(_no_option)]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Limits(_Entry):
    """When a run is stopped, and how often it is tried. None switches a limit off."""

    first_event_s: Positive | None = Field(
        60, title="First event within (s)", description="Seconds from start to the agent's first event"
    )
    quiet_s: Positive | None = Field(
        420, title="Quiet for at most (s)", description="Seconds without any event once it spoke"
    )
    turn_s: Positive | None = Field(
        1800, title="One answer (s)", description="Seconds for one answer of the model, however lively it drips"
    )
    no_change_s: Positive | None = Field(
        None, title="No change for at most (s)", description="Seconds without a change in the work tree"
    )
    total_s: Positive = Field(
        7200, title="Whole run (s)", description="Seconds for the whole run, enforced on the host"
    )
    grace_s: Positive = Field(10, title="Grace (s)", description="Seconds between TERM and KILL")
    attempts: Annotated[int, Field(ge=1, le=10), Number] = Field(
        2, title="Attempts", description="Tries in all, when the failure earns another"
    )
    max_usd: Positive | None = Field(
        None, title="Spend cap (USD)", description="Spend cap of an attempt, where its cost is known"
    )
    max_tokens: Whole | None = Field(
        None, title="Token cap", description="Tokens an attempt may use, those read from a cache among them"
    )
    max_turns: Whole | None = Field(None, title="Turn cap", description="Answers of the model in an attempt")
    max_log_bytes: Annotated[int, Field(ge=100_000), Number] = Field(
        200_000_000, title="Output cap (bytes)", description="Size cap of the agent's output"
    )
    max_collect_bytes: Annotated[int, Field(ge=100_000), Number] = Field(
        500_000_000, title="Commits cap (bytes)", description="Size cap of the commits"
    )
    max_processes: Annotated[int, Field(ge=32), Number] = Field(
        512, title="Process cap", description="Process cap of the run's tree"
    )


def pin(line: str) -> str:
    """A host key as `TYPE BASE64`, from a line of ssh-keyscan, known_hosts or a .pub file.

    Raises:
        ValueError: no key of a known type stands in it.
    """
    fields = line.split()
    for kind, body in pairwise(fields):
        if kind.startswith(("ssh-", "ecdsa-", "sk-")) and body.startswith("AAAA"):
            return f"{kind} {body}"
    raise ValueError("needs a key type and the key, e.g. 'ssh-ed25519 AAAA...', as ssh-keyscan prints it")


def host_name(text: str) -> str:
    """A host's name or IP address alone.

    Raises:
        ValueError: it holds a user, a port or a scheme.
    """
    if re.search(r"[\s@/]", text):
        raise ValueError(f"{text!r} is more than a name or IP address; write the user under user, the port under port")
    return text


class HostSpec(_Entry):
    """A machine that carries runs: by address, by the name of a saved SSHHost block, or this machine."""

    kind: Literal["ssh", "local"] = Field("ssh", description="`local` runs agents on this machine")
    block: str | None = Field(
        None, description="Name of a saved SSHHost block; then only slots, path and min_free_bytes may be added"
    )
    address: Annotated[str, AfterValidator(host_name)] | None = Field(None, description="Name or IP address")
    port: Annotated[int, Field(ge=1, le=65535), Number] = Field(22, description="Port of its sshd")
    user: str | None = Field(None, description="Account the agents run under")
    key_file: Path | None = Field(None, description="Private key, without a passphrase")
    host_key: Annotated[str, AfterValidator(pin)] | None = Field(
        None, description="Pinned host key: 'ssh-ed25519 AAAA...'"
    )
    known_hosts: Path | None = Field(None, description="Used when host_key is not given; default ~/.ssh/known_hosts")
    slots: Annotated[int, Field(ge=1, le=500), Number] = Field(4, description="Runs at the same time")
    path: tuple[str, ...] = Field((), description="Folders searched for agents before the usual ones")
    python: str = Field("python3", description="Python 3.8 or newer on the host")
    directory: str = Field(".overnight", description="Folder on the host, relative to the user's home")
    min_free_bytes: Annotated[int, Field(ge=0), Number] = Field(
        1_000_000_000, description="With less free on its disk no run is begun there"
    )

    @model_validator(mode="after")
    def _complete(self) -> HostSpec:
        given = {name for name, field in HostSpec.model_fields.items() if getattr(self, name) != field.default}
        if self.block is not None and (more := given - {"block", "slots", "path", "min_free_bytes"}):
            raise ValueError(f"{', '.join(sorted(more))} cannot stand beside block, which brings its own")
        if self.kind == "local" and (more := given & {"block", "address", "port", "user", "key_file", "host_key"}):
            raise ValueError(f"{', '.join(sorted(more))} cannot stand beside kind: local, which is this machine")
        if self.kind == "ssh" and self.block is None:
            missing = [n for n in ("address", "user", "key_file") if n not in given]
            if missing:
                raise ValueError(f"needs {', '.join(missing)}; or block: NAME, or kind: local")
        if relative := [folder for folder in self.path if not folder.startswith("/")]:
            raise ValueError(f"path holds {relative[0]!r}; write folders in full, from / on")
        return self


def _way(value: object) -> object:
    """`deliver: push` for `deliver: {how: push}`."""
    return {"how": value} if isinstance(value, str) else value


class _Common(_Entry):
    repo: Argument | None = Field(None, description="A path on this machine, or a URL the host can clone")
    base: Argument | None = Field(None, description="Branch, tag or commit the work starts from")
    route: Annotated[RouteChoice, BeforeValidator(listed)] = Field(
        RouteChoice(),
        description="Where the task goes; or a list of such, the best first; or `any_of` with weights. "
        "What is left out comes from defaults",
    )
    limits: dict[str, Any] = Field({}, description="Below; a task's own win over those of defaults")
    verify: str | None = Field(None, description="Command that must exit 0 in a fresh clone of what came home")
    ask_for_commit: bool | None = Field(None, description="Append a line that asks the agent to commit; default true")
    approve: bool | None = Field(
        None, description="Make the branch only after a person approved the diff on the Prefect page; default false"
    )
    verify_on: Literal["host", "here"] | None = Field(
        None,
        description="`here` runs the check on this machine, as you: what an agent wrote runs here; default host",
    )
    verify_twice: bool | None = Field(
        None, description="A check that failed runs once more on the same commit; default false"
    )
    guards: dict[str, Any] = Field({}, description="Below; a task's own win over those of defaults")
    deliver: Annotated[dict[str, Any], BeforeValidator(_way)] = Field(
        {}, description="Below, or only `branch` or `push`; a task's own win over those of defaults"
    )
    feed_back: bool | None = Field(
        None, description="After a failed check tell the next attempt what the check said; default false"
    )
    resume_session: bool | None = Field(
        None,
        description="The next attempt goes on with the agent's own session and work tree, on the same route; "
        "default false",
    )
    priority: Annotated[int, Number] | None = Field(None, description="Higher goes first; default 0")


class TaskEntry(_Common):
    id: Name = Field(description="Lower-case letters, digits and single . _ - between them; part of the branch name")
    instruction: str | None = Field(None, description="What the agent should do")
    instruction_file: Path | None = Field(None, description="A file that says it, beside the batch file")
    after: tuple[Name, ...] = Field((), description="Ids of tasks that must have succeeded before this one starts")
    stacked: bool = Field(
        False,
        description="Start from what the one task under `after` committed, as stacked branches do",
    )

    @model_validator(mode="after")
    def _one_instruction(self) -> TaskEntry:
        if (self.instruction is None) == (self.instruction_file is None):
            raise ValueError("give either instruction or instruction_file")
        return self


class BudgetCaps(_Entry):
    """What may be spent. What earlier starts of the batch spent counts; None is no cap."""

    max_usd: Positive | None = Field(None, description="US dollars, as far as costs are known")
    max_tokens: Whole | None = Field(None, description="Tokens, those read from a cache among them")


class Budget(BudgetCaps):
    """Caps of a whole batch, and of what goes to one provider: once reached nothing starts, and what runs is ended."""

    providers: dict[str, BudgetCaps] = Field({}, description="The same caps for what goes to one provider, by its name")


class BatchFile(_Entry):
    """The batch file, schema 1."""

    schema_: Annotated[Literal[1], Number] = Field(1, alias="schema")
    name: Name = Field(description="As a task's id; part of the batch id")
    author: str = Field(
        AUTHOR,
        pattern=r"^[^<>\n]+ <[^<>\s]+>$",
        description="Name and address of the commits, unless the agent sets its own",
    )
    spread: bool = Field(
        False, description="Each attempt as a flow run of its own on a work pool; needs a Prefect server with workers"
    )
    budget: Budget = Field(Budget(), description="What the whole batch may spend")
    providers: dict[str, Ceilings] = Field(
        {}, description="What is asked of a provider at the most, by its name; in place of the lock's numbers"
    )
    peak: Peak = Field("allow", description="`avoid` waits with starts while the provider's peak hours last")
    deadline: Argument | None = Field(
        None,
        description="No start after it: the next `07:00` of this clock, or a moment as `2026-12-01T07:00`",
    )
    wrap_up_s: Annotated[float, Field(ge=0, allow_inf_nan=False), Number] = Field(
        900, description="Seconds that what runs at the deadline still has; then it is ended, and its commits collected"
    )
    hosts: dict[Name, HostSpec] = {}
    defaults: _Common = _Common()
    tasks: tuple[TaskEntry, ...] = Field(min_length=1)


class TaskSpec(_Entry):
    """One coding task, complete: nothing in it refers to defaults or files any more."""

    id: str
    repo: str
    base: str
    instruction: str
    route: Route
    limits: Limits
    verify: str | None = None
    ask_for_commit: bool = True
    approve: bool = False
    verify_on: Literal["host", "here"] = "host"
    verify_twice: bool = False
    guards: Guards = Guards()
    deliver: Deliver = Deliver()
    routes: tuple[Route, ...] = Field((), description="Every route it may take, as written; empty for `route` alone")
    weights: tuple[float, ...] = Field((), description="Of `routes`, when one is drawn; else empty")
    feed_back: bool = False
    resume_session: bool = False
    priority: int = 0
    after: tuple[str, ...] = ()
    stacked: bool = False
    first: int = Field(1, description="Number of its first attempt here; a spread batch hands them out one by one")
    field: str = Field(description="Where it stands in the batch file, for messages")
    told: str = Field("", description="Of one attempt: what it is told of the one before")
    resumed: Resumed | None = Field(None, description="Of one attempt: what it is to go on with, or why not")
    below: Below | None = Field(None, description="Of one attempt of a stacked task: what it starts from")

    def on(self, route: Route) -> TaskSpec:
        """The same task with this route as its current one."""
        return self if route == self.route else self.model_copy(update={"route": route})

    def ordered(self, batch_id: str) -> tuple[Route, ...]:
        """Its routes, the best first. Of weighted ones the order is drawn, for one batch always the same."""
        if not self.weights:
            return tuple(dict.fromkeys(self.routes or (self.route,)))
        return tuple(dict.fromkeys(self.routes[i] for i in drawn(self.weights, f"{batch_id} {self.id}")))

    @property
    def route_field(self) -> str:
        """Where its current route stands in the batch file."""
        if len(self.routes) < 2 or self.route not in self.routes:
            return f"{self.field}.route"
        return f"{self.field}.route{'.any_of' if self.weights else ''}[{self.routes.index(self.route)}]"


class BatchSpec(_Entry):
    """A batch, complete. `source` is the file the user named, for messages."""

    name: str
    source: str
    author: str
    spread: bool = False
    budget: Budget = Budget()
    providers: dict[str, Ceilings] = {}
    peak: Peak = "allow"
    deadline: str | None = None
    wrap_up_s: float = 900
    hosts: dict[str, HostSpec]
    tasks: tuple[TaskSpec, ...]

    @property
    def placed(self) -> tuple[TaskSpec, ...]:
        """Each task once on each of its routes: first choices first, then what may stand in for them."""
        further = (task.on(route) for task in self.tasks for route in task.routes if route != task.route)
        return (*self.tasks, *further)

    @property
    def routes(self) -> tuple[Route, ...]:
        """Each distinct route, in the order of first use."""
        return tuple(dict.fromkeys(task.route for task in self.placed))

    def only(self, ids: Sequence[str]) -> BatchSpec:
        """The same batch with these tasks alone; they wait for nothing that is left out.

        Raises:
            BadInput: an id is not in the batch.
        """
        known = [task.id for task in self.tasks]
        for wanted in ids:
            if wanted not in known:
                raise BadInput(self.source, "--only", f"no task {wanted!r}", suggest(wanted, known))
        kept = [t for t in self.tasks if t.id in ids]
        for task in kept:
            if task.stacked and task.after[0] not in ids:
                problem = f"{task.id} is stacked on {task.after[0]}, which is left out"
                mend = f"Add --only {task.after[0]}, or write base in place of stacked"
                raise BadInput(self.source, "--only", problem, mend)
        alone = [t.model_copy(update={"after": tuple(name for name in t.after if name in ids)}) for t in kept]
        return self.model_copy(update={"tasks": tuple(alone)})


def is_url(repo: str) -> bool:
    """Whether git would fetch it over a network: a scheme, or scp's `host:path`."""
    return "://" in repo or bool(re.match(r"^[\w.-]+(@[\w.-]+)?:", repo))
