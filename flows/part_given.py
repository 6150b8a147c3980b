"""What the flow run of one attempt is given: the parameters of `single`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel

from overnight.below import Below
from overnight.delivery import merges_into
from overnight.form import choice_of
from overnight.git import Repo
from overnight.night import Night
from overnight.spec import HostSpec, TaskSpec, is_url


def parameters(night: Night, task: TaskSpec, attempt: int) -> dict[str, Any]:
    """An attempt as the form of `single` takes it. A local repository's base is pinned: every launch starts there."""
    base = task.base if is_url(task.repo) else Repo(Path(task.repo), night.search_path).resolve(task.base)
    return {
        "repo": task.repo,
        "instruction": task.instruction,
        "host": _block(night.batch.hosts[task.route.host]),
        "route": choice_of(task.route),
        "base": base,
        "verify": task.verify or "",
        "approve": task.approve,
        "verify_on": task.verify_on,
        "verify_twice": task.verify_twice,
        "guards": task.guards.model_dump(),
        "deliver": task.deliver.model_copy(update={"base": merges_into(task)}).model_dump(),
        "limits": night.spending.share(task).model_copy(update={"attempts": 1}).model_dump(),
        "ask_for_commit": task.ask_for_commit,
        "resume_session": task.resume_session,
        "name": task.id,
        "author": night.batch.author,
        "ceilings": _dumped(night.batch.providers.get(task.route.provider)),
        "part_of": night.ledger.batch_id,
        "attempt": attempt,
        "told": task.told,
        "resumed": _dumped(task.resumed),
        "below": _below(night, task.below),
        "host_name": task.route.host,
    }


def _below(night: Night, below: Below | None) -> dict[str, Any] | None:
    """With the machine of that run, from which a worker brings what its own repository lacks."""
    return {**below.model_dump(mode="json"), "machine": _block(night.batch.hosts[below.host])} if below else None


def _dumped(given: BaseModel | None) -> dict[str, Any] | None:
    return given.model_dump(mode="json") if given is not None else None


def _block(host: HostSpec) -> dict[str, Any]:
    """A host as an SSHHost block holds it; `prepare` has refused those that cannot be one."""
    return host.model_dump(mode="json", exclude={"kind", "block", "known_hosts"})
