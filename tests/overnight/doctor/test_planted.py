"""What is planted is named, and nothing that is not so: every case with the real agent, on a real host."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from overnight.rehearsal.agents import Agent
from tests.overnight.doctor.planted import CASES, HARNESSES, WELL
from tests.overnight.doctor.worlds import Case, Seen, named, row, visited

pytestmark = pytest.mark.full
MOST_CALLS = 12 + 8  # of the search; and those before it, of which some agents make two
SEEN: dict[Case, Seen] = {}


@pytest.fixture(scope="module")
def agents(real_agent: Callable[[str], Agent]) -> Path:
    [folder] = {real_agent(harness).path.parent for harness in HARNESSES}
    return folder


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where other users may look, as into a home; pytest's own folders are closed to them."""
    with tempfile.TemporaryDirectory(prefix="overnight-planted-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_planted_cause_is_named_and_no_other(case: Case, folder: Path, agents: Path) -> None:
    seen = SEEN[case] = visited(case, folder, agents)
    assert seen.missing(case) == [], seen.text
    assert seen.wrong(case) == [], seen.text
    assert seen.calls <= MOST_CALLS


@pytest.mark.parametrize("case", WELL, ids=str)
def test_where_nothing_is_wrong_nothing_is_named(case: Case, folder: Path, agents: Path) -> None:
    seen = visited(case, folder, agents)
    assert seen.wrong(case) == [], seen.text
    assert not any(each.startswith("kind:") for each in named(seen.checkup))


def test_the_table_of_all() -> None:
    """Printed, and counted as was promised: at least 38 of at least 40 named, no wrong name."""
    if len(SEEN) < len(CASES):
        pytest.skip("not every case was run here")
    sys.stdout.write("\n".join(["", *(row(case, seen) for case, seen in SEEN.items()), ""]))
    assert len(CASES) >= 40
    assert sum(not seen.missing(case) for case, seen in SEEN.items()) >= 38
    assert sum(bool(seen.wrong(case)) for case, seen in SEEN.items()) == 0
