"""The Prefect API that a command uses, and how it calls a flow."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.exceptions import PrefectHTTPStatusError
from prefect.logging.configuration import setup_logging
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, get_current_settings, temporary_settings

from blocks.register import register
from flows.private_server import PrivateServer, private_server, running
from flows.progress import Progress
from flows.revival import kept_up
from overnight.failures import BadInput


@contextmanager
def prefect_api(state: Path, progress: Progress) -> Iterator[PrivateServer | None]:
    """The configured Prefect API, or a private server for as long as the batch runs.

    Raises:
        BadInput: the configured API does not answer, or does not let us in.
    """
    configured = get_current_settings().api.url
    if configured is not None:
        with get_client(sync_client=True) as client:
            error = client.api_healthcheck()
            if error is not None:
                mend = "Start that server, or unset it and a private one is used"
                raise BadInput("environment or Prefect profile", "PREFECT_API_URL", f"{configured}: {error}", mend)
            try:
                client.api_version()
            except PrefectHTTPStatusError as refused:
                problem = f"{configured} answers {refused.response.status_code} {refused.response.reason_phrase}"
                mend = "Set PREFECT_API_AUTH_STRING or PREFECT_API_KEY as that server wants it"
                raise BadInput("environment or Prefect profile", "PREFECT_API_URL", problem, mend) from None
        yield None
        return
    if running(state / "prefect") is None:
        progress.say("No Prefect API is configured: starting a private server (about 10 s)")
    with (
        private_server(state, os.environ) as server,
        temporary_settings({PREFECT_API_URL: server.api_url, PREFECT_API_AUTH_STRING: server.auth}),
    ):
        register()
        progress.say(f"Prefect pages: {server.url}  (log in with the line in {server.login_file})")
        with kept_up(server, os.environ, progress.say):
            yield server


async def ended(call: Any) -> State[Any]:
    """The flow's final state; Prefect 3.8.8 types the call of an async flow as if it were not awaitable."""
    state: State[Any] = await call
    return state


def quiet_console() -> None:
    """Prefect's own lines go to its pages; on the terminal they would bury ours. A user's own setting wins."""
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    setup_logging()
