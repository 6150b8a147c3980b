"""The README's claims that can go stale, held against the code. `python -m tests.test_readme` rewrites the table."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from flows.rehearse import incident_script
from overnight import lockfile
from overnight.ceilings import Ceilings
from overnight.choice import RouteChoice
from overnight.failures import RULES, Family, Source
from overnight.handover import GUARDS, Deliver, Guards
from overnight.kinds import ORDER, WHO
from overnight.rungs import RULES as RUNGS
from overnight.spec import BatchFile, Budget, HostSpec, Limits, TaskEntry

README = Path(__file__).resolve().parent.parent / "README.md"
_TABLE = re.compile(r"(<!-- (failures|ladder|reference|story): .*? -->\n)(.*?)(<!-- end -->)", re.DOTALL)
_SOURCES: dict[Source, str] = {
    "event": "the agent's own structured event",
    "body": "the provider's code in a body",
    "http": "an HTTP status",
    "exit": "how the process ended",
    "stderr": "the agent's own error line",
    "git": "what git counted",
    "clock": "a clock that ran out",
    "host": "what was seen on the host or on the way to it",
    "probe": "a call of our own on the same route",
    "lock": "`providers.lock.json`",
    "keys": "the places where keys are kept",
}


def failures() -> str:
    """The table of failures, as the README shows it."""
    proofs = [f"`{source}` is {_SOURCES[source]}" for source in ORDER]
    lines = [*textwrap.wrap(f"Who can say so, strongest first: {'; '.join(proofs)}.", 118), ""]
    lines += [
        "| kind | what it means | what proves it | family: who acts | retry | the mend |",
        "|---|---|---|---|---|---|",
    ]
    for kind, rule in sorted(RULES.items(), key=lambda row: list(Family).index(row[1].family)):
        sources = " ".join(f"`{source}`" for source in ORDER if source in rule.proved_by)
        proof = f"{rule.proof}{f' ({sources})' if sources else ''}"
        shuts = "*" if rule.shuts_route else ""
        remedy = re.sub(r"\{(\w+)\}", lambda hole: hole[1].upper(), rule.remedy)
        acts = f"{rule.family}: {WHO[rule.family]}"
        lines.append(f"| `{kind}`{shuts} | {rule.meaning} | {proof} | {acts} | {rule.retry} | {remedy} |")
    return "\n".join(lines) + "\n"


def ladder() -> str:
    """The rungs of a silent run, as the README shows them."""
    lines = ["| rung | what was seen | so the run is called |", "|---|---|---|"]
    for rung, rule in RUNGS.items():
        called = "at work: it goes on" if rule.holds else f"`{rule.kind}`" if rule.kind else ""
        vague = ", unless a fresh call is refused for another cause" if rule.vague else ""
        lines.append(f"| `{rung}` | {rule.meaning} | {called}{vague} |")
    return "\n".join(lines) + "\n"


def reference() -> str:
    """Every key of a batch file, as the README shows it."""
    places: list[tuple[str, type[BaseModel]]] = [("", BatchFile), ("budget.", Budget), ("providers.NAME.", Ceilings)]
    places += [("hosts.NAME.", HostSpec), ("tasks[].", TaskEntry), ("tasks[].route.", RouteChoice)]
    places += [("tasks[].limits.", Limits), ("tasks[].guards.", Guards), ("tasks[].deliver.", Deliver)]
    lines = [
        "`defaults` takes the keys of a task but `id` and the instruction.",
        "",
        "| key | default | |",
        "|---|---|---|",
    ]
    for prefix, model in places:
        for name, field in model.model_fields.items():
            if field.description:
                plain = field.default in (None, (), PydanticUndefined) or isinstance(field.default, BaseModel | dict)
                lines.append(f"| `{prefix}{name}` | {'' if plain else f'`{field.default}`'} | {field.description} |")
    return "\n".join(lines) + "\n"


def story() -> str:
    """What `overnight lock check` says of the script that cost a day."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "dispatch.sh").write_text(incident_script(lockfile.load()))
        argv = [sys.executable, "-c", "from flows.entry import main; main()", "lock", "check", "dispatch.sh"]
        env = {"PATH": os.defpath, "HOME": folder, "PYTHONPATH": str(README.parent)}
        done = subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    return "\n" + "".join(f"    {line}\n" for line in done.stdout.splitlines()) + "\n"


TABLES = {"failures": failures, "ladder": ladder, "reference": reference, "story": story}


def test_the_tables_are_current() -> None:
    found = {kind: text for _, kind, text, _ in _TABLE.findall(README.read_text())}
    assert found == {kind: made() for kind, made in TABLES.items()}


def test_the_guards_have_the_policies_it_says() -> None:
    said = re.findall(r"^\| `(\w+)` \| .*? \| (note|hold|refuse)\b", README.read_text(), re.MULTILINE)
    assert dict(said) == {guard: Guards().policy(guard) for guard in GUARDS if guard != "unread"}


def test_the_providers_are_those_of_the_lock() -> None:
    listed = re.search(r"Providers in the lock: ([^.]*)\.", README.read_text())
    assert listed is not None
    ours = {name for name in lockfile.load().providers if not name.startswith("rehearsal")}
    assert set(re.split(r",\s+", listed[1])) == ours


if __name__ == "__main__":
    README.write_text(_TABLE.sub(lambda found: found[1] + TABLES[found[2]]() + found[4], README.read_text()))
