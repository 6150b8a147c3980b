"""The README's claims that can go stale, held against the code. `python -m tests.test_readme` rewrites the table."""

from __future__ import annotations

import re
from pathlib import Path

from overnight import lockfile
from overnight.failures import RULES, Family
from overnight.spec import Limits

README = Path(__file__).resolve().parent.parent / "README.md"
_TABLE = re.compile(r"(<!-- made by .*? -->\n)(.*?)(<!-- end -->)", re.DOTALL)
_WHO = {
    Family.SETUP: "whoever edits the batch file or the lock",
    Family.AUTH: "whoever holds the key",
    Family.QUOTA: "whoever pays",
    Family.PROVIDER: "the provider's servers",
    Family.NETWORK: "whoever runs the network",
    Family.HOST: "whoever runs the machine",
    Family.HARNESS: "whoever updates the agent",
    Family.STALL: "nobody yet",
    Family.WORK: "whoever wrote the instruction",
    Family.OURS: "us, or whoever stopped it",
    Family.UNKNOWN: "whoever reads the output",
}


def families() -> str:
    """The table of failure families, as the README shows it."""
    lines = ["| family | who must act | kinds (retry) |", "|---|---|---|"]
    for family in Family:
        rules = [(kind, rule) for kind, rule in RULES.items() if rule.family is family]
        kinds = [f"`{kind}`{'*' if rule.shuts_route else ''} ({rule.retry})" for kind, rule in rules]
        lines.append(f"| {family} | {_WHO[family]} | {', '.join(kinds)} |")
    return "\n".join(lines) + "\n"


def test_the_table_of_families_is_current() -> None:
    found = _TABLE.search(README.read_text())
    assert found is not None
    assert found[2] == families()


def test_the_limits_have_their_defaults() -> None:
    text = README.read_text()
    for name in ("first_event_s", "quiet_s", "total_s", "max_log_bytes", "attempts"):
        shown = re.search(rf"\| `{name}` \| (\d+) \|", text)
        assert shown is not None
        assert float(shown[1]) == Limits.model_fields[name].default


def test_the_providers_are_those_of_the_lock() -> None:
    listed = re.search(r"Providers in the lock: ([^.]*)\.", README.read_text())
    assert listed is not None
    ours = {name for name in lockfile.load().providers if not name.startswith("rehearsal")}
    assert set(listed[1].split(", ")) == ours


if __name__ == "__main__":
    README.write_text(_TABLE.sub(lambda m: m[1] + families() + m[3], README.read_text()))
