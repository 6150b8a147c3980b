"""One coding task as a flow run of its own: a button in the browser, and the unit of a work pool."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Failed
from pydantic import Field

from blocks.ssh_host import SSHHost
from blocks.stacked_on import StackedOn
from blocks.task_form import TaskForm
from flows.attempts import begun_before, carry_out, end_state, in_slots
from flows.cancel import finish
from flows.limits import rooms
from flows.part_report import hand_over, part_run_name
from flows.prepare import check_forges, checked, record, state_directory
from overnight import batchfile, layers, lockfile
from overnight.ceilings import Ceilings
from overnight.failures import BadInput
from overnight.form import PARAMETERS, REPO_SHAPE, choices, name_from
from overnight.handover import Deliver, Guards
from overnight.ledger import Ledger, part_name
from overnight.session import Resumed
from overnight.spec import AUTHOR, Limits

# read once, when the form is made; a flow run reads the lock that it is given
_ROUTES = choices(layers.in_use(None, os.environ))


def _named() -> str:
    """`batch tonight / fix-parser #2`, or the task's own name when it belongs to no batch."""
    given: dict[str, Any] = flow_run.parameters
    name = given.get("name") or name_from(given.get("instruction", ""))
    batch = re.sub(r"-\d{8}-\d{6}-[0-9a-f]{4}$", "", given.get("part_of", ""))
    return part_run_name(batch, name, given.get("attempt", 1)) if batch else str(name)


@flow(name="single", flow_run_name=_named, on_cancellation=[finish])
async def single(
    repo: Annotated[str, Field(min_length=1, json_schema_extra={"pattern": REPO_SHAPE})],
    instruction: Annotated[str, Field(min_length=1)],
    host: SSHHost,
    route: Annotated[str, Field(json_schema_extra={"enum": _ROUTES})],
    base: str = "HEAD",
    verify: str = "",
    approve: bool = False,
    limits: Limits = Limits(),  # noqa: B008  # frozen, and the form shows what it holds
    verify_on: Literal["host", "here"] = "host",
    verify_twice: bool = False,
    guards: Guards = Guards(),  # noqa: B008  # as limits
    deliver: Deliver = Deliver(),  # noqa: B008  # as limits
    ask_for_commit: bool = True,
    resume_session: bool = False,
    name: str = "",
    author: str = AUTHOR,
    resume: str = "",
    part_of: str = "",
    attempt: Annotated[int, Field(ge=1)] = 1,
    told: str = "",
    resumed: Resumed | None = None,
    below: StackedOn | None = None,
    ceilings: Ceilings | None = None,
    host_name: str = "",
    state: str = "",
    lock: str = "",
) -> State[Any]:
    """Run one coding task to commits and a report. Cancel still collects commits; after a crash start it with resume.

    Args:
        repo: A git repository: a path on the worker's machine, e.g. /srv/git/app.git, or a URL the host can clone.
        instruction: What the agent should do, e.g. Add structured logging to server.py, with a test.
        host: The machine that runs the agent, a saved SSH Host block.
        route: Agent, provider and model, as the lock names them.
        base: Branch, tag or commit the work starts from, e.g. main.
        verify: Command that must exit 0 in a fresh clone of what came home, e.g. make test. Empty for none.
        approve: Make the branch only after you approved the diff on this run's page.
        limits: When a run is stopped, and how often it is tried.
        verify_on: Where the check runs; here is the worker's machine, as its user.
        verify_twice: A check that failed runs once more on the same commit.
        guards: What becomes of the branch when the diff holds something of a sort.
        deliver: Where the commits go when the task succeeded.
        ask_for_commit: Append a line that asks the agent to commit.
        resume_session: The next attempt goes on with the agent's own session and work tree, where the agent can.
        name: Part of the branch name. Empty takes the instruction's first words.
        author: Name and address of the commits, unless the agent sets its own.
        resume: Batch id of an earlier run, to go on where it stopped.
        part_of: Set by a batch that spreads its tasks, to its id.
        attempt: Set by a batch that spreads its tasks: the number of this attempt, which is the only one made here.
        told: Set by a batch that spreads its tasks: what this attempt is told of the one before.
        resumed: Set by a batch that spreads its tasks: the session this attempt is to go on with, or why not.
        below: Set by a batch that spreads its tasks: the run whose commits this attempt starts from, and where it lies.
        ceilings: Set by a batch that spreads its tasks: what its file has the provider asked at the most.
        host_name: Set by a batch that spreads its tasks. Empty takes the block's name.
        state: State directory on the worker. Empty means $XDG_STATE_HOME/overnight.
        lock: Provider lock on the worker. Empty means $OVERNIGHT_LOCK, else the one of this project.
    """
    given = {**locals(), "id": name}
    return await _carry_out(TaskForm.among(given), given)


async def _carry_out(form: TaskForm, given: dict[str, Any]) -> State[Any]:
    """The task, with whatever else the form of `single` holds."""
    part_of, below, state, lock = given["part_of"], given["below"], given["state"], given["lock"]
    host, machines = given["host_name"] or form.host.saved_as, {below.host: below.machine} if below else {}
    try:
        directory = state_directory(Path(state) if state else None, os.environ)
        lock_path = lockfile.place(Path(lock) if lock else None, os.environ)
        task = form.entry(layers.whole(lock_path), "tasks[0]", host)
        again = given["resume"] or ("" if part_of else begun_before(directory))  # a part is found by its name
        ledger = _ledger(directory, task, {**machines, host: form.host}, given, lock_path, again)
        ledger.reopen()
        with ledger.held():
            async with rooms() as room:
                report = await carry_out(ledger, in_slots(room.slot), flow_name=_named(), probed=bool(part_of))
    except BadInput as error:
        field = error.field.removeprefix("tasks[0].")  # here there is one task, and its fields are the form's
        shown = BadInput(error.where, field, error.problem, error.mend)
        return Failed(message=str(shown), data=shown)
    if part_of:
        await hand_over(report, UUID(flow_run.id))
    return end_state(report)


def _ledger(
    directory: Path,
    task: dict[str, Any],
    hosts: dict[str, SSHHost],
    given: dict[str, Any],
    lock_path: Path,
    resume: str,
) -> Ledger:
    """The record of this task: the one to resume, or a new one."""
    if resume:
        return Ledger(directory, resume)
    part_of, attempt, ceilings = given["part_of"], given["attempt"], given["ceilings"]
    part = part_name(task["id"], attempt) if part_of else ""
    if part_of:
        _check_id(part_of)
        known = Ledger(directory, part_of, part)
        if (known.directory / "batch.json").exists():
            return known
    described = {name: host.described() for name, host in hosts.items()}
    asked = {task["route"]["provider"]: ceilings} if ceilings else {}
    whole = {"author": given["author"], "providers": asked, "hosts": described, "tasks": [task]}
    raw = {"name": task["id"], **whole}
    batch = batchfile.complete(raw, PARAMETERS, Path.home(), {})
    check_forges(batch)
    if part_of:
        of_attempt = {"first": attempt, **{field: given[field] for field in ("told", "resumed", "below")}}
        batch = batch.model_copy(update={"tasks": tuple(t.model_copy(update=of_attempt) for t in batch.tasks)})
    return record(checked(batch, lock_path, os.environ, part_of or None), directory, part)


def _check_id(batch_id: str) -> None:
    """It becomes a folder's name."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", batch_id):
        raise BadInput(PARAMETERS, "part_of", f"{batch_id!r} is no batch id", "Leave it empty; batches set it")
