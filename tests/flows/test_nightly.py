"""When a night begins, and what `overnight up` refuses before it starts anything."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flows.nightly import clock, daily, spoken, zone
from flows.up import Wish, up
from overnight.failures import BadInput
from tests.flows.world import ROOT


@pytest.mark.parametrize(("at", "minutes"), [(None, 60), ("00:00", 0), ("1:05", 65), ("23:59", 1439)])
def test_a_time_of_day(at: str | None, minutes: int) -> None:
    assert clock(at) == minutes


@pytest.mark.parametrize("at", ["24:00", "1", "01:60", "01:00:00", "noon", " 01:00"])
def test_no_time_of_day(at: str) -> None:
    with pytest.raises(BadInput, match="--at"):
        clock(at)


@pytest.mark.parametrize(("minutes", "cron"), [(60, "0 1 * * *"), (-20, "40 23 * * *"), (1445, "5 0 * * *")])
def test_every_day(minutes: int, cron: str) -> None:
    assert daily(minutes) == cron


def test_a_cron_line_is_read_back() -> None:
    assert spoken(daily(65)) == "every day at 01:05"
    assert spoken("0 1 * * 1-5") == "cron 0 1 * * 1-5"


def test_a_time_zone_by_name_and_the_nearest_to_a_wrong_one() -> None:
    assert zone("Asia/Shanghai") == "Asia/Shanghai"
    with pytest.raises(BadInput, match="Europe/Berlin"):
        zone("Europe/Berlyn")


def test_the_zone_of_this_machine() -> None:
    env = {"PATH": os.environ["PATH"], "TZ": "Europe/Paris"}
    argv = [sys.executable, "-c", "from flows.nightly import zone; print(zone(None))"]
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "Europe/Paris"


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ({"listen": "0.0.0.0", "login": False}, "--no-login"),
        ({"listen": "::", "login": False}, "--no-login"),
        ({"listen": "10.1.2.3", "login": False}, "--no-login"),
        ({"listen": "everywhere"}, "--listen"),
        ({"at": "02:00"}, "--nightly"),
        ({"nightly": Path("missing.yaml")}, "missing.yaml"),
    ],
)
def test_refused_before_anything_is_started(wish: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=words):
        up(Wish(**wish), tmp_path / "state", {}, print)
    assert not (tmp_path / "state").exists()
