"""`overnight lock check` as it is typed, and as the hook."""

from __future__ import annotations

import json
import os
import re
import shutil
import site
import subprocess
import venv
from pathlib import Path

import pytest
import typer
from ruamel.yaml import YAML
from typer.testing import CliRunner

from flows.cli_lock_check import check

APP = typer.Typer()
APP.command()(check)
WRONG = "ANTHROPIC_BASE_URL=https://api.z.ai/api/anthropic ANTHROPIC_API_KEY=$K claude\n"
MINE = "ANTHROPIC_BASE_URL=https://llm.example.org ANTHROPIC_API_KEY=$K claude\n"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(APP, list(arguments))
    return done.exit_code, done.output


def test_exit_codes(tmp_path: Path) -> None:
    assert run() == (0, "0 launchers read, nothing against the lock\n")
    Path("run.sh").write_text(WRONG)
    assert run("run.sh")[0] == 1
    assert run("nowhere.sh")[0] == 2
    assert run("--format", "json", "--lock", "nowhere.json")[0] == 2


def test_warnings_fail_only_when_asked() -> None:
    Path("run.sh").write_text(WRONG.replace("API_KEY", "AUTH_TOKEN").replace("claude", "API_TIMEOUT_MS=1 claude"))
    code, output = run()
    assert (code, "warning: API_TIMEOUT_MS is 1" in output) == (0, True)
    assert run("--strict")[0] == 1


def test_fix_mends_and_says_so() -> None:
    Path("run.sh").write_text(WRONG)
    code, output = run("--fix")
    assert (code, "mended run.sh" in output) == (0, True)
    assert Path("run.sh").read_text() == WRONG.replace("API_KEY", "AUTH_TOKEN")


def test_an_overlay_names_a_provider_of_ones_own() -> None:
    Path("run.sh").write_text(MINE)
    assert run()[0] == 0
    lock = json.loads((ROOT / "providers.lock.json").read_text())
    mine = lock["providers"]["zai"] | {"title": "Ours"}
    mine["endpoints"]["anthropic"]["url"] = "https://llm.example.org"
    overlay = {"schema": 1, "as_of": "2026-11-22", "providers": {"ours": mine}}
    Path("overnight.lock.json").write_text(json.dumps(overlay))
    code, output = run()
    assert (code, "the key of ours is in ANTHROPIC_API_KEY" in output) == (1, True)


def test_the_hook_hands_over_what_can_be_a_launcher() -> None:
    hooks = {hook["id"]: hook for hook in YAML(typ="safe").load(ROOT / ".pre-commit-hooks.yaml")}
    files = re.compile(hooks["overnight-lock-check"]["files"])
    for path in ("run.sh", ".env", "a/.env.local", "Dockerfile", "bin/agent", ".github/workflows/a.yml", "x.service"):
        assert files.search(path), path
    assert not files.search("README.md")
    assert hooks["overnight-lock-check"]["entry"] == "overnight lock check"


@pytest.mark.full
def test_installed_without_a_checkout_it_has_its_lock_with_it(tmp_path: Path) -> None:
    """As a hook's environment has it: the wheel, and nothing of the source."""
    source, environment = tmp_path / "source", tmp_path / "environment"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "tests", "*.egg-info", "build"))
    here = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(site.getsitepackages()), "HOME": str(tmp_path)}
    venv.create(environment, with_pip=False)
    python, script = environment / "bin" / "python", tmp_path / "run.sh"
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "-q"]
    subprocess.run([python, "-m", "pip", "install", *offline, source], env=here, check=True, timeout=300)
    script.write_text(WRONG)
    argv = [str(environment / "bin" / "overnight"), "lock", "check", str(script)]
    done = subprocess.run(argv, cwd=tmp_path, env=here, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, "the key of zai is in ANTHROPIC_API_KEY" in done.stdout) == (1, True), done.stderr
