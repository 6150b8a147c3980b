"""Checking files: which are read, what is shown of them, and what is written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from overnight.harnesses import HARNESSES
from overnight.launchers.check import Checked, check
from overnight.launchers.formats import FORMATS
from overnight.launchers.locked import COMMANDS, Locked, parse
from overnight.launchers.mend import mend
from overnight.lockplace import DEFAULT_LOCK

KEY = "Zx81-not-a-real-key"
WRONG = (
    "export OTHER_TOKEN=hush-hush-hush ANTHROPIC_BASE_URL=https://api.z.ai/api/anthropic\n"
    f"OTHER_TOKEN=hush-hush-hush ANTHROPIC_API_KEY={KEY} claude\n"
)
# what SARIF 2.1.0 requires of the objects that are used here
SARIF = {
    "type": "object",
    "required": ["version", "runs"],
    "properties": {
        "version": {"const": "2.1.0"},
        "runs": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["tool", "results"],
                "properties": {
                    "columnKind": {"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
                    "tool": {
                        "type": "object",
                        "required": ["driver"],
                        "properties": {
                            "driver": {
                                "type": "object",
                                "required": ["name"],
                                "properties": {
                                    "rules": {
                                        "type": "array",
                                        "uniqueItems": True,
                                        "items": {"type": "object", "required": ["id"]},
                                    }
                                },
                            }
                        },
                    },
                    "results": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": ["message"],
                            "properties": {
                                "level": {"enum": ["none", "note", "warning", "error"]},
                                "ruleIndex": {"type": "integer", "minimum": -1},
                                "message": {"type": "object", "required": ["text"]},
                                "locations": {
                                    "type": "array",
                                    "items": {
                                        "type": "object",
                                        "properties": {
                                            "physicalLocation": {
                                                "type": "object",
                                                "required": ["artifactLocation"],
                                                "properties": {
                                                    "region": {
                                                        "type": "object",
                                                        "additionalProperties": {"type": "integer", "minimum": 1},
                                                    }
                                                },
                                            }
                                        },
                                    },
                                },
                            },
                        },
                    },
                },
            },
        },
    },
}


@pytest.fixture(scope="module")
def lock() -> Locked:
    return parse(DEFAULT_LOCK.read_text())


@pytest.fixture
def wrong(tmp_path: Path) -> Path:
    (tmp_path / "run.sh").write_text(WRONG)
    return tmp_path


def found(folder: Path, lock: Locked) -> Checked:
    return check([folder], lock, folder)


def test_a_finding_says_where_and_what_and_why(wrong: Path, lock: Locked) -> None:
    text = FORMATS["text"](found(wrong, lock))
    assert text.startswith("run.sh:2:28: error: the key of zai is in ANTHROPIC_API_KEY")
    assert "providers.zai.harnesses.claude-code.set.ANTHROPIC_AUTH_TOKEN (https://" in text
    assert "write  OTHER_TOKEN=*** ANTHROPIC_AUTH_TOKEN=*** claude" in text
    assert text.endswith("1 launcher read, 1 finding; 1 can be mended with --fix")


@pytest.mark.parametrize("form", FORMATS)
def test_no_key_is_shown(form: str, wrong: Path, lock: Locked) -> None:
    shown = FORMATS[form](found(wrong, lock))
    assert "key-in-wrong-variable" in shown
    assert KEY not in shown
    assert "hush" not in shown


def test_sarif_holds_what_its_standard_requires(wrong: Path, lock: Locked) -> None:
    document = json.loads(FORMATS["sarif"](found(wrong, lock)))
    jsonschema.validate(document, SARIF)
    (result,) = document["runs"][0]["results"]
    assert document["runs"][0]["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
    place = result["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "run.sh"
    assert place["region"] == {"startLine": 2, "startColumn": 28, "endLine": 2, "endColumn": 45}


def test_github_marks_the_line(wrong: Path, lock: Locked) -> None:
    assert FORMATS["github"](found(wrong, lock)).startswith("::error file=run.sh,line=2,col=28,endLine=2,title=key-in-")


def test_nothing_found_is_said_in_each_form(tmp_path: Path, lock: Locked) -> None:
    nothing = found(tmp_path, lock)
    assert FORMATS["text"](nothing) == "0 launchers read, nothing against the lock"
    assert FORMATS["github"](nothing) == ""
    assert json.loads(FORMATS["json"](nothing)) == {"schema": 1, "files": 0, "findings": []}
    jsonschema.validate(json.loads(FORMATS["sarif"](nothing)), SARIF)


def test_mending_keeps_the_mode_and_goes_through_links(wrong: Path, lock: Locked) -> None:
    script, link = wrong / "run.sh", wrong / "link.sh"
    script.chmod(0o750)
    link.symlink_to(script)
    assert mend(check([link], lock, wrong).findings) == ["link.sh"]
    assert link.is_symlink()
    assert script.stat().st_mode & 0o777 == 0o750
    assert script.read_text() == WRONG.replace("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")
    assert sorted(path.name for path in wrong.iterdir()) == ["link.sh", "run.sh"]


def test_a_file_that_changed_meanwhile_is_left_alone(wrong: Path, lock: Locked) -> None:
    checked = found(wrong, lock)
    (wrong / "run.sh").write_text("# new\n")
    assert mend(checked.findings) == []
    assert (wrong / "run.sh").read_text() == "# new\n"


def test_ignored_and_binary_files_are_not_read(wrong: Path, lock: Locked) -> None:
    (wrong / "build").mkdir()
    (wrong / "build" / "run.sh").write_text(WRONG)
    (wrong / "image.sh").write_bytes(b"\0" + WRONG.encode())
    (wrong / ".gitignore").write_text("build/\n")
    subprocess.run(["git", "init", "-q", str(wrong)], check=True)
    assert [each.place.text.shown for each in found(wrong, lock).findings] == ["run.sh"]


def test_a_script_that_starts_two_providers_is_not_mended_for_one(tmp_path: Path, lock: Locked) -> None:
    text = "export ANTHROPIC_API_KEY=$K\nANTHROPIC_BASE_URL=https://api.z.ai/api/anthropic claude\nclaude\n"
    (tmp_path / "run.sh").write_text(text)
    (only,) = found(tmp_path, lock).findings
    assert not only.certain


def test_a_thousand_forks_end(tmp_path: Path, lock: Locked) -> None:
    forks = "".join(f'if [ "$A{i}" = x ]; then ANTHROPIC_MODEL=m{i}; fi\n' for i in range(1000))
    (tmp_path / "run.sh").write_text(f"f() {{\n{forks}}}\nf\nf\nclaude\n")
    assert found(tmp_path, lock).files == 1


def test_commands_are_those_of_the_harnesses() -> None:
    ours = {harness.COMMAND: name for name, harness in HARNESSES.items() if name != "scripted"}
    assert ours.items() <= COMMANDS.items()


def test_a_clean_check_waits_for_no_models_and_no_prefect(tmp_path: Path) -> None:
    (tmp_path / "run.sh").write_text(WRONG.replace("API_KEY", "AUTH_TOKEN"))
    code = (
        "import sys; from flows.entry import main; sys.argv = ['overnight', 'lock', 'check']\n"
        "try: main()\nexcept SystemExit as end: print(end.code)\n"
        "print(*sorted({'prefect', 'overnight.lockfile', 'ruamel'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True, env=_environment()
    )
    assert done.stdout.splitlines() == ["1 launcher read, nothing against the lock", "0", ""]


def _environment() -> dict[str, str]:
    return {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
