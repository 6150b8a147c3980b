"""Prefect's share: task runs, API calls and database bytes per coding task, and whether an agent's words get there.

    python -m tests.bench.share [--tasks 16]

A batch in one process against a server of ours on SQLite. It is carried out
twice: with an agent of one commit, and with one that says a thousand lines
more, of which Prefect's log must not grow. `prefect_cost` compares with
spreading.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.bench.prefect_cost import LIMITS, Seen, served, settled
from tests.bench.rig import Part, Row, command_of, parser, quiet, run, tell, within
from tests.flows.teamed import Team
from tests.flows.world import ROOT
from tests.overnight.nights import COMMIT, MODEL

AT_ONCE, LINES = 5, 1000


def batch(here: Team, name: str, tasks: int, steps: Sequence[dict[str, str]]) -> None:
    instruction = "\n".join(["```script", *map(json.dumps, steps), "```"])
    route = {"host": "box", "harness": "scripted", "provider": "rehearsal", "model": MODEL}
    defaults = {"repo": str(here.repo), "base": "main", "route": route, "limits": LIMITS, "ask_for_commit": False}
    wanted = [{"id": f"t{number}", "instruction": instruction} for number in range(tasks)]
    path = here.directory / f"{name}.yaml"
    path.write_text(json.dumps({"name": name, "hosts": here.hosts, "defaults": defaults, "tasks": wanted}))
    argv: list[str | Path] = [sys.executable, "-m", "flows.batch", path, "--lock", here.directory / "lock.json"]
    run([*argv, "--state", here.directory / "state"], env=here.env, cwd=ROOT)


def logged(here: Team) -> int:
    """Lines in Prefect's log."""
    link = sqlite3.connect(here.directory / "prefect" / "prefect.db")
    [lines] = link.execute("select count(*) from log").fetchone()
    link.close()
    return int(lines)


def measure(tasks: int) -> tuple[Row, ...]:
    seen: list[Seen] = []
    logs: list[int] = []
    with served(AT_ONCE, 0) as here, quiet():
        talk = {"sh": f"for i in $(seq {LINES}); do echo an agent says line $i; done"}
        raw = [{"raw": f"line {number} of an agent"} for number in range(LINES // 10)]
        for name, steps in (("quiet", [{"sh": COMMIT}]), ("talks", [{"sh": COMMIT}, talk, *raw])):
            before, lines = settled(here), logged(here)
            batch(here, name, tasks, steps)
            seen.append(settled(here).per_task(before, tasks))
            logs.append(logged(here) - lines)
    (first, second), (mute, talking) = seen, logs
    return (
        within("task runs per coding task", first.task_runs, "", 6.0, 2),
        within("API calls per coding task", first.calls, "", None, 2),
        within("database per coding task", first.database_bytes / 1e3, "kB", 60.0),
        within("the same, second batch, agents that talk", second.database_bytes / 1e3, "kB", 60.0),
        within("server, CPU per coding task", first.server_cpu_s, "s", None, 2),
        Row(
            "lines in Prefect's log per coding task; with agents that say a thousand lines more",
            f"{mute / tasks:.1f}; {talking / tasks:.1f}",
            bar="no more",
            met=talking <= mute + tasks // 4,
        ),
    )


def main() -> None:
    options = parser(__doc__, tasks=16).parse_args()
    rows = measure(options.tasks)
    notes = (f"{options.tasks} tasks, {AT_ONCE} at once; a flow run, its routes and its report are part of it.",)
    tell(Part("Prefect's share", command_of("share", options), rows, notes), options.json)


if __name__ == "__main__":
    main()
