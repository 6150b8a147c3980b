from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from flows.cli import app
from overnight import lockfile
from overnight.lockfile import DEFAULT_LOCK, OVERLAY, ProviderLock
from tests.overnight.overlays import overlay

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OVERNIGHT_LOCK", raising=False)


def run(*args: str) -> Result:
    return CliRunner().invoke(app, ["lock", *args])


@pytest.mark.parametrize("args", [["show"], ["explain", "zai/claude-code"], ["env", "zai", "goose"], ["validate"]])
def test_no_prefect_is_imported(args: list[str]) -> None:
    code = (
        "import sys; from flows.cli import app; app(sys.argv[1:], standalone_mode=False);"
        "sys.exit(any(name.split('.')[0] == 'prefect' for name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, "lock", *args], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_show_lists_every_provider() -> None:
    done = run("show")
    assert done.exit_code == 0
    assert all(f"\n{name} " in f"\n{done.stdout}" for name in lockfile.load().providers)
    assert "environment-only: bedrock, vertex, foundry" in done.stdout
    assert "both-key-variables" in done.stdout


@pytest.mark.parametrize("name", ["zai", "goose", "bedrock", "both-key-variables"])
def test_show_prints_a_whole_entry(name: str) -> None:
    plain, data = run("show", name), json.loads(run("show", name, "--json").stdout)
    assert data
    assert "2026-11-22" in plain.stdout or "2026-08-22" in plain.stdout
    assert "{'" not in plain.stdout


def test_the_merged_lock_is_a_lock(tmp_path: Path) -> None:
    overlay(tmp_path, providers={"ollama": {"endpoints": {"anthropic": {"url": "http://10.0.0.5:11434"}}}})
    merged = tmp_path / "merged.json"
    merged.write_text(run("show", "--json").stdout, encoding="utf-8")
    lock = lockfile.load(merged)
    assert lock.wiring("ollama", "claude-code", where="w", field="f")
    assert lock.providers["zai"] == lockfile.load().providers["zai"]
    assert run("env", "ollama", "claude-code", "--lock", str(merged)).exit_code == 0


def test_the_overlay_of_the_folder_counts_and_explain_says_so(tmp_path: Path) -> None:
    assert "from " not in run("explain", "zai").stdout
    path = overlay(tmp_path, providers={"zai": {"models": {"glm-6": {}}}})
    said = run("explain", "zai").stdout
    assert f"model glm-6\n    {OVERLAY}, 2026-11-21, unverified; from {path}\n" in said
    assert f"; from {DEFAULT_LOCK}" in said
    assert f"in part from {path}" in run("show").stdout
    rows = json.loads(run("explain", "zai", "--json").stdout)
    assert [row["layer"] for row in rows if row["words"] == "model glm-6"] == [str(path)]


def test_an_overlay_can_be_named(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    path = overlay(folder, providers={"zai": {"models": {"glm-6": {}}}})
    assert "glm-6" not in run("explain", "zai").stdout
    assert "glm-6" in run("explain", "zai", "--overlay", str(path)).stdout


def test_diff_of_entries_and_of_files(tmp_path: Path) -> None:
    done = run("diff", "moonshot", "moonshot-cn")
    assert done.exit_code == 1
    assert (
        "https://api.moonshot.ai/anthropic in moonshot, https://api.moonshot.cn/anthropic in moonshot-cn" in done.stdout
    )
    assert run("diff", "moonshot", "moonshot").exit_code == 0
    other = tmp_path / "other.json"
    lock = lockfile.load()
    changed = lock.model_copy(update={"providers": {"zai": lock.providers["zai"]}})
    other.write_text(changed.model_dump_json(by_alias=True), encoding="utf-8")
    found = json.loads(run("diff", str(DEFAULT_LOCK), str(other), "--json").stdout)
    assert {each["place"] for each in found} == {f"providers.{name}" for name in lock.providers if name != "zai"}


def test_schema_is_the_lock_s() -> None:
    assert json.loads(run("schema").stdout) == lockfile.schema()


def test_validate_tells_sound_from_contradiction_from_unreadable(tmp_path: Path) -> None:
    assert run("validate").exit_code == 0
    path = overlay(tmp_path, providers={"zai": {"headers": {"bearer": {"accepted": "no"}}}})
    for args in ([], [str(path)], [str(DEFAULT_LOCK), str(path)]):
        done = run("validate", *args)
        assert done.exit_code == 1
        assert f"{path}: providers.zai.harnesses.claude-code.set.ANTHROPIC_AUTH_TOKEN: sends" in done.stdout
    path.write_text("{}", encoding="utf-8")
    done = run("validate", str(path))
    assert done.exit_code == 2
    assert f"{path}: schema: is missing" in done.output
    assert "mend: " in done.output


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["show", "zia"], "Did you mean zai"),
        (["explain", "zia"], "Did you mean zai"),
        (["diff", "zai", "x.json"], "Give two files, or two names"),
        (["diff", "none.json", "x.json"], "No such file"),
        (["env", "zai", "goose", "--format", "settings.json"], "goose reads no settings.json"),
        (["env", "ollama", "goose"], "the address of ollama is yours to set"),
        (["show", "--overlay", "none.json"], "none.json: file: No such file"),
    ],
)
def test_what_cannot_be_is_refused_with_a_mend(args: list[str], said: str) -> None:
    done = run(*args)
    assert done.exit_code == 2
    assert said in done.output
    assert "mend: " in done.output


def test_env_writes_to_standard_output_and_notes_beside_it() -> None:
    done = run("env", "zai", "claude-code", "--format", "settings.json")
    assert json.loads(done.stdout)["env"]["ANTHROPIC_BASE_URL"] == "https://api.z.ai/api/anthropic"
    assert "ANTHROPIC_AUTH_TOKEN is not in it" in done.stderr
    assert "export ANTHROPIC_AUTH_TOKEN=" in run("env", "zai", "claude-code").stdout


def test_env_says_when_an_overlay_had_a_say(tmp_path: Path) -> None:
    path = overlay(tmp_path, providers={"zai": {"endpoints": {"anthropic": {"url": "https://elsewhere.example"}}}})
    assert f"note: in part from {path}" in run("env", "zai", "claude-code").stderr
    assert "note: " not in run("env", "zhipu", "claude-code").stderr


def test_what_is_shown_whole_reads_back() -> None:
    assert ProviderLock.model_validate_json(run("show", "--json").stdout) == lockfile.load()
