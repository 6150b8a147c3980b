"""The house's rules, held by reading the source."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("overnight", "blocks", "tasks", "flows", "deployments")
# inside overnight, a module imports from its own group and from groups before it
GROUPS = (
    ("kinds",),
    (
        "failures",
        "session",
        "below",
        "env",
        "usage",
        "sample",
        "events",
        "inventory",
        "carry",
        "sampler",
        "facts",
        "choice",
        "ceilings",
        "gauge",
        "tariff",
        "harnessentry",
        "traps",
        "lockplace",
        "clock",
    ),
    ("lockfile", "route", "handle", "keyshape", "redact"),
    ("errands", "layers", "routeenv", "wire", "handover", "spec", "transcript", "yamlfile", "peak", "meter"),
    (
        "caps",
        "launch",
        "resume",
        "plan",
        "batchfile",
        "form",
        "silence",
        "stop",
        "outcome",
        "collected",
        "cost",
        "report",
        "totals",
        "exact",
        "attribution",
        "alarm",
        "causes",
        "firstlines",
        "printable",
        "timeline",
        "page",
        "morning",
        "ledger",
        "past",
        "ends",
        "budget",
        "history",
        "outgoing",
        "deadline",
        "sequence",
        "resets",
        "again",
        "breaker",
        "decisions",
        "schedule",
    ),
    (
        "harnesses",
        "hosts",
        "git",
        "probe",
        "keycheck",
        "soundness",
        "envtext",
        "explain",
        "lockdiff",
        "launchers",
        "leaks",
        "diffs",
        "scrutiny",
        "push",
        "forge",
    ),
    (
        "order",
        "room",
        "frames",
        "calls",
        "remote",
        "runcopy",
        "follow",
        "rungs",
        "ladder",
        "reprobe",
        "watch",
        "guard",
        "quota",
        "workspace",
        "attendance",
        "station",
        "hostcheck",
        "preflight",
        "doctor",
        "verify",
        "stages",
        "spending",
        "stack",
        "monitor",
        "night",
        "reporting",
        "delivery",
        "sweep",
        "adopt",
        "tidy",
    ),
    ("launchers",),
    ("rehearsal",),
)
ONLY_IN = {
    "paramiko": ("overnight/hosts/",),
    "asyncssh": ("overnight/rehearsal/",),
    "uvicorn": ("overnight/rehearsal/",),
    "starlette": ("overnight/rehearsal/",),
    "httpx": (
        "overnight/probe.py",
        "overnight/rehearsal/",
        "overnight/forge.py",
        "tasks/pages.py",
        "flows/private_server.py",
    ),
    "scipy": ("overnight/exact.py",),
    "detect_secrets": ("overnight/leaks.py",),
    "jinja2": ("overnight/page.py",),
    "prefect": ("blocks/", "tasks/", "flows/", "deployments/"),
}
LINES, FUNCTION_LINES = 350, 60
TOO_LONG_ON_PURPOSE = {"overnight/supervisor.py": "one file by design: it is copied to hosts alone"}
CREDENTIAL_VARIABLE = re.compile(
    r"\b(ANTHROPIC|OVERNIGHT_SCRIPTED|OVERNIGHT_PI|GOOSE|CLAUDE_CODE|OPENAI|COPILOT_PROVIDER|QWEN)_[A-Z_]+\b"
)


def sources(*rooms: str) -> list[Path]:
    return sorted(path for room in rooms for path in (ROOT / room).rglob("*.py"))


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "overnight":
            yield from (f"overnight.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def group(module: str) -> int:
    return next(i for i, members in enumerate(GROUPS) if module in members)


def test_the_parser_of_imports_sees_both_forms(tmp_path: Path) -> None:
    source = tmp_path / "a.py"
    source.write_text("import prefect.states\nfrom overnight.plan import RunPlan\nfrom overnight import probe\n")
    assert list(imported(source)) == ["prefect.states", "overnight.plan", "overnight.probe"]


@pytest.mark.parametrize("path", sources(*ROOMS), ids=name)
def test_rooms_import_only_downwards(path: Path) -> None:
    room = ROOMS.index(name(path).split("/")[0])
    for module in imported(path):
        head = module.split(".")[0]
        assert head not in ROOMS or ROOMS.index(head) <= room, f"{name(path)} imports {module}"


@pytest.mark.parametrize("path", sources("overnight"), ids=name)
def test_overnight_imports_only_leftwards(path: Path) -> None:
    own = name(path).split("/")[1].removesuffix(".py")
    if own == "__init__":
        return
    for module in imported(path):
        parts = module.split(".")
        if parts[0] == "overnight":
            assert parts[1] != "supervisor", "nothing imports the supervisor: it runs on hosts"
            assert own != "supervisor", "the supervisor imports nothing of ours"
            assert group(parts[1]) <= group(own), f"{name(path)} imports {module}"


def test_every_module_of_overnight_has_a_group() -> None:
    found = {name(path).split("/")[1].removesuffix(".py") for path in sources("overnight")} - {"__init__", "supervisor"}
    assert found == {module for members in GROUPS for module in members}


def test_the_supervisor_needs_the_standard_library_only() -> None:
    for module in imported(ROOT / "overnight" / "supervisor.py"):
        assert module.split(".")[0] in sys.stdlib_module_names


@pytest.mark.parametrize("path", sources(*ROOMS), ids=name)
def test_libraries_stay_in_their_rooms(path: Path) -> None:
    for module in imported(path):
        allowed = ONLY_IN.get(module.split(".")[0])
        assert allowed is None or name(path).startswith(allowed), f"{name(path)} imports {module}"


@pytest.mark.parametrize("path", sources("overnight"), ids=name)
def test_overnight_reads_no_environment_and_sets_up_no_logging(path: Path) -> None:
    # what runs on hosts or as a program of its own has an environment of its own
    apart = (
        "overnight/supervisor.py",
        "overnight/harnesses/scripted_agent.py",
        "overnight/doctor/onhost",
        "overnight/rehearsal/matrix/__main__.py",
    )
    if name(path).startswith(apart):
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            assert not (
                node.attr in ("environ", "getenv") and isinstance(node.value, ast.Name) and node.value.id == "os"
            )
            assert node.attr not in ("basicConfig", "dictConfig")


@pytest.mark.parametrize("path", sources(*ROOMS), ids=name)
def test_variable_names_live_in_the_lock_and_the_harness_modules(path: Path) -> None:
    if name(path).startswith("overnight/harnesses/"):
        return
    assert not CREDENTIAL_VARIABLE.findall(path.read_text())


@pytest.mark.parametrize("path", sources(*ROOMS, "tests"), ids=name)
def test_files_stay_readable(path: Path) -> None:
    if name(path) not in TOO_LONG_ON_PURPOSE:
        assert len(path.read_text().splitlines()) <= LINES


@pytest.mark.parametrize("path", sources(*ROOMS), ids=name)
def test_functions_stay_readable(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < FUNCTION_LINES, f"{name(path)}:{node.lineno} {node.name}"


@pytest.mark.parametrize("path", sources(*ROOMS), ids=name)
def test_no_broad_except(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ExceptHandler):
            caught = node.type.id if isinstance(node.type, ast.Name) else ""
            broad = node.type is None or caught in ("Exception", "BaseException")
            kept = isinstance(node.body[-1], ast.Raise) or "set_exception" in ast.dump(node.body[0])
            assert not broad or kept, f"{name(path)}:{node.lineno}"


def test_flows_hold_no_errors() -> None:
    """A class that may be raised from a flow would exist twice: as `batch` and as `flows.batch`."""
    for path in sources("flows"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
                assert not any(base.endswith(("Error", "Exception")) for base in bases), f"{name(path)} {node.name}"


def test_every_ignore_has_its_reason_beside_it() -> None:
    bare = re.compile(r"# (?:type: ignore(?:\[[a-z-]+\])?|noqa(?:: [A-Z0-9, ]+)?)\s*$")
    for path in sources(*ROOMS, "tests"):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            assert not bare.search(line), f"{name(path)}:{number}"


def test_no_registry_host_and_no_machine_path() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    forbidden = re.compile(
        "|".join(["files.pythonhosted" + ".org", "pypi.org/" + "simple", "registry.npmjs" + ".org", "/work" + "/"])
    )
    for each in filter(None, tracked):
        path = ROOT / each
        if path.is_file():
            assert not forbidden.search(path.read_bytes().decode("utf-8", "replace")), each
