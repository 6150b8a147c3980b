"""Which task comes after which, checked before anything starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

from overnight.failures import BadInput
from overnight.lockfile import suggest
from overnight.spec import TaskSpec, is_url


def check_sequence(tasks: Sequence[TaskSpec], source: str) -> None:
    """See that every `after` can come true.

    Raises:
        BadInput: an unknown id, a circle, or a task that cannot start from what another committed.
    """
    known = {task.id: task for task in tasks}
    for task in tasks:
        for i, name in enumerate(task.after):
            if name not in known:
                near = suggest(name, [other for other in known if other != task.id])
                raise BadInput(source, f"{task.field}.after[{i}]", f"no task {name!r}", near)
        if task.stacked:
            _check_stack(task, known, source)
    try:
        TopologicalSorter({task.id: task.after for task in tasks}).prepare()
    except CycleError as error:
        circle = list(reversed(error.args[1]))  # graphlib names each before what it comes after
        problem = f"goes in a circle: {' after '.join(circle)}"
        raise BadInput(source, f"{known[circle[0]].field}.after", problem, "Take one of them out") from None


def _check_stack(task: TaskSpec, known: Mapping[str, TaskSpec], source: str) -> None:
    field = f"{task.field}.stacked"
    if len(task.after) != 1:
        mend = "Name the one task it is stacked on under after"
        raise BadInput(source, field, f"needs exactly one task under after, there are {len(task.after)}", mend)
    below = known[task.after[0]]
    if is_url(task.repo) or task.repo != below.repo:
        problem = (
            f"{below.id} works on {below.repo}, this one on {task.repo}; a stack needs one repository, by its path"
        )
        raise BadInput(source, field, problem, "Give both the same path of a clone on this machine as repo")
