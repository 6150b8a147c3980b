"""A controller that dies at its n-th write below the state directory, without a word, as `kill -9` would end it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from overnight.spec import HostSpec
from tests.overnight.nights import Evening, carry_out

_WRITES = os.O_WRONLY | os.O_RDWR
DIED = 9


def dies_at(number: int, state: Path) -> None:
    """End this process just before the write that has this number: a file opened for it, or moved to its place."""
    count = 0

    def look(event: str, args: tuple[object, ...]) -> None:
        nonlocal count
        writes = event == "os.rename" or (event == "open" and isinstance(args[2], int) and args[2] & _WRITES)
        if writes and str(args[0]).startswith(str(state)):
            count += 1
            if count == number:
                os._exit(DIED)

    sys.addaudithook(look)


def main(described: str, number: int) -> None:
    """Go on with the night of one task as `--resume` does: decided is decided, begun is found, the rest is begun."""
    given = json.loads(described)
    directory = Path(given["directory"])
    host = HostSpec.model_validate(given["host"])
    evening = Evening(directory, given["repo"], host, Path(given["lock"]))
    task = evening.task("t", given["instruction"])
    dies_at(number, directory / "state")
    with evening.night(task, batch_id=given["batch_id"]) as night:
        if not night.ledger.attempts("t"):
            carry_out(night, task)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
