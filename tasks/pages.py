"""Writing to Prefect's pages. The API may be away: then pages are late, and the night is not."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable
from typing import Any

import httpx
from prefect import get_run_logger
from prefect.exceptions import PrefectException
from prefect.runtime import task_run

from overnight.ledger import Ledger

# what Prefect's client raises when the API does not answer as it should; ValueError: no JSON, or no artifact
_AWAY = (httpx.HTTPError, PrefectException, TimeoutError, ValueError)
# that client alone would try for 62 s (prefect 3.8.8, five retries), and every try holds up the night
WRITE_S = 20.0


async def written(write: Awaitable[Any]) -> bool:
    """Wait for one write to the API, up to 20 s; False, and a line in the log, when it did not take it."""
    try:
        async with asyncio.timeout(WRITE_S):
            await write
    except _AWAY as error:
        why = str(error) or type(error).__name__
        get_run_logger().warning("a page is missing: the Prefect API did not take it: %s", why)
        return False
    return True


def key(*words: str) -> str:
    """An artifact's key. Prefect takes lower-case letters, digits and dashes.

    Made of a batch's name, never its id: so the page of a key shows its nights in a row.
    """
    return re.sub(r"[^a-z0-9]+", "-", "-".join(words).lower()).strip("-")


def note_page(ledger: Ledger, run_id: str) -> None:
    """Write down that the attempt's page is the one of the task run this is called in."""
    ledger.save(run_id, "page", {"path": f"/runs/task-run/{task_run.id}"})


def page_of(ledger: Ledger, run_id: str) -> str:
    """Where on the server the attempt's page is, from its root; empty when that is not known."""
    try:
        path: str = json.loads((ledger.directory / "runs" / run_id / "page.json").read_text(encoding="utf-8"))["path"]
    except FileNotFoundError:
        return ""
    return path
