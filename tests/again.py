"""`python -m tests.again`: what failed a moment ago, once more in a process of its own; fails where it fails again.

Tests of real processes share a machine with others. A test that passes alone is
told, not hidden, and more than MOST_FILES files of them are no accident.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

MOST_FILES = 5
FAILED = Path(__file__).resolve().parent.parent / ".pytest_cache" / "v" / "cache" / "lastfailed"


def main() -> int:
    failed: dict[str, bool] = json.loads(FAILED.read_text(encoding="utf-8")) if FAILED.exists() else {}
    files = {name.partition("::")[0] for name in failed}
    few = 0 < len(files) <= MOST_FILES
    sys.stderr.write("Failed, and run once more alone:\n" if few else f"{len(files)} files failed: not run again\n")
    sys.stderr.write("".join(f"  {name}\n" for name in sorted(failed)))
    if not few:
        return 1
    return int(pytest.main(["-q", "--last-failed", *sorted(files)]))


if __name__ == "__main__":
    sys.exit(main())
