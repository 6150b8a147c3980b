"""A night's private server that dies is started again, so that a night without a keeper keeps its pages."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from flows.keeper import Backoff
from flows.private_server import PrivateServer, revived
from overnight.failures import BadInput

_LOOK_S = 1.0


@contextmanager
def kept_up(server: PrivateServer, environ: Mapping[str, str], say: Callable[[str], None]) -> Iterator[None]:
    """Start the server again, at its address, whenever its process has died while the block runs.

    One that was stopped in order stays stopped. Several users may keep the same server up.
    """
    left = threading.Event()
    thread = threading.Thread(target=_keep, args=(server, environ, say, left), name="private server", daemon=True)
    thread.start()
    try:
        yield
    finally:
        left.set()
        thread.join()


def _keep(server: PrivateServer, environ: Mapping[str, str], say: Callable[[str], None], left: threading.Event) -> None:
    backoff = Backoff()
    while not left.wait(_LOOK_S):
        if not server.died() or not backoff.due():
            continue
        backoff.started()
        say("The private Prefect server died; the runs go on, and it is started again")
        try:
            again = revived(server, environ)
            if again.child is not None:  # whoever stops the server at the end waits for the process it is by then
                if server.child is not None:
                    server.child.wait()
                server.child = again.child
        except BadInput as error:
            say(f"{error.where}: {error.field} {error.problem}")
