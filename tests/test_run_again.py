"""What `make test` does with tests that failed: once more alone, and no more than a few."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import again

FLAKY = """from pathlib import Path

def test_it():
    mark = Path(__file__).with_suffix(".ran")
    was = mark.exists()
    mark.touch()
    assert was
"""
BROKEN = "def test_it():\n    assert False\n"


@pytest.mark.parametrize(
    ("files", "code", "told"),
    [
        ([FLAKY], 0, "run once more alone:\n  tests/test_0.py::test_it"),
        ([FLAKY, BROKEN], 1, "tests/test_1.py::test_it"),
        ([FLAKY] * (again.MOST_FILES + 1), 1, f"{again.MOST_FILES + 1} files failed: not run again"),
    ],
)
def test_what_failed_is_run_once_more_and_told(tmp_path: Path, files: list[str], code: int, told: str) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "pytest.ini").touch()
    shutil.copy(again.__file__, tmp_path / "tests")
    for number, text in enumerate(files):
        (tmp_path / "tests" / f"test_{number}.py").write_text(text)
    first = subprocess.run([sys.executable, "-m", "pytest", "-q"], cwd=tmp_path, capture_output=True, check=False)
    assert first.returncode == 1
    argv = [sys.executable, "-m", "tests.again"]
    second = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (second.returncode, told in second.stderr) == (code, True), second.stdout + second.stderr
