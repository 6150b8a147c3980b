from __future__ import annotations

import json
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from overnight.lockfile import Header
from overnight.rehearsal.model import PROBE_SENTENCE

pytestmark = pytest.mark.full  # each test starts processes

ROOT = Path(__file__).resolve().parents[3]


def started(*arguments: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-W", "error", "-m", "overnight.rehearsal", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(argv, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    try:
        _, err = process.communicate(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, err


def served(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    described: dict[str, Any] = json.loads(process.stdout.readline())
    return described


def ask(site: dict[str, Any], words: str, header: Header) -> httpx.Response:
    body = {"model": site["models"][0], "messages": [{"role": "user", "content": words}]}
    key = Path(site["key_file"]).read_text()
    return httpx.post(site["url"] + "/v1/messages", json=body, headers=header.carry(key), trust_env=False)


@pytest.mark.parametrize("end", ["stdin", "SIGINT", "SIGTERM"])
def test_it_serves_what_it_prints_until_it_is_told_to_end(tmp_path: Path, end: str) -> None:
    process = started("--directory", str(tmp_path), "--fault", "rehearsal=overloaded,times=1")
    told = served(process)
    plain, x = told["sites"]["rehearsal"], told["sites"]["rehearsal-x"]
    probe = PROBE_SENTENCE.format(nonce="pony")
    assert [ask(plain, probe, Header.BEARER).status_code for _ in range(2)] == [529, 200]
    assert ask(plain, probe, Header.X_API_KEY).status_code == 401
    assert "pony" in ask(x, probe, Header.X_API_KEY).text
    assert ask(x, probe, Header.BEARER).status_code == 401
    if end != "stdin":
        process.send_signal(getattr(signal, end))
    assert ended(process) == (0, "")


def test_keys_are_private_and_stay_for_the_next_start(tmp_path: Path) -> None:
    seen = []
    for _ in range(2):
        process = started("--directory", str(tmp_path))
        told = served(process)
        assert ended(process) == (0, "")
        files = [told["host"]["key_file"], *(site["key_file"] for site in told["sites"].values())]
        assert {stat.S_IMODE(Path(file).stat().st_mode) for file in files} == {0o600}
        seen.append([told["host"]["host_key"], *(Path(file).read_text() for file in files)])
    assert seen[0] == seen[1]
    assert len(set(seen[0])) == len(seen[0])


def test_sites_and_tapes_of_ones_own(tmp_path: Path) -> None:
    tapes = tmp_path / "tapes.yaml"
    tapes.write_text("tapes: [{match: job, steps: [{say: hi}]}]")
    site = "mine,accepts=both,shape=anthropic,models=m1+m2,answers_as=m3"
    process = started("--directory", str(tmp_path / "new"), "--tapes", str(tapes), "--site", site)
    told = served(process)["sites"]
    assert list(told) == ["mine"]
    assert told["mine"]["accepts"] == ["bearer", "x-api-key"]
    assert told["mine"]["models"] == ["m1", "m2"]
    assert ask(told["mine"], "job", Header.X_API_KEY).json()["model"] == "m3"
    assert ended(process) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--fault", "rehearsl=hang"], "no such site. Did you mean rehearsal"),
        (["--fault", "rehearsal=hangs"], "Did you mean hang?"),
        (["--site", "../up"], "cannot be part of a URL"),
        (["--site", "a,shap=zhipu"], "Did you mean shape?"),
        (["--site", "a,accepts=cookie"], "unknown 'cookie'"),
        (["--tapes", "absent.yaml"], "absent.yaml: file: cannot be read"),
    ],
)
def test_bad_input_is_named_and_nothing_is_started(tmp_path: Path, arguments: Sequence[str], said: str) -> None:
    process = started("--directory", str(tmp_path), *arguments)
    code, err = ended(process)
    assert code == 2
    assert said in err
    assert "Traceback" not in err


def test_a_port_in_use_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for flag in ("--port", "--ssh-port"):
            process = started("--directory", str(tmp_path), flag, str(taken.getsockname()[1]))
            code, err = ended(process)
            assert code == 2
            assert "address already in use" in err.lower()
            assert "Traceback" not in err
