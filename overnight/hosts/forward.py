"""A port of a host that leads back to this machine: a reverse forward, held open as long as it is wanted."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Self

import paramiko

from overnight.failures import FailureKind, HostError, fail
from overnight.hosts.translate import BROKEN, SshAddress, seen, translate

LOOPBACK = "127.0.0.1"
_CHECK_S = 1.0
_CHUNK_BYTES = 32768
_MEND = (
    "in sshd_config of {host} set `AllowTcpForwarding yes` (or `remote`), and no PermitListen without this port; "
    "in authorized_keys the key needs `port-forwarding` where it is under `restrict`"
)


class Forward:
    """Connections to loopback's `port` on the host come out at loopback's `to` here, while its `with` block runs.

    A connection that breaks is dialled again within a second or two of a host
    that is back. What was under way on it is lost, as with any network.

    Args:
        dial: A new connection to the host, or a HostError.
        address: Of the host, for messages.
    """

    def __init__(self, dial: Callable[[], paramiko.Transport], address: SshAddress, port: int, to: int) -> None:
        self._dial = dial
        self._address = address
        self._port = port
        self._to = to
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        self._transport = self._opened()
        self._keeper = threading.Thread(target=self._keep, name=f"forward on {self._address.name}", daemon=True)
        self._keeper.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._keeper.join()
        self._transport.close()  # with it the host stops listening

    def _opened(self) -> paramiko.Transport:
        transport = self._dial()
        try:
            transport.request_port_forward(LOOPBACK, self._port, self._welcome)
        except BROKEN as error:
            refused = transport.is_active()  # the library has one class for a host that says no and one that is gone
            transport.close()
            raise self._refused() if refused else translate(error, self._address) from error
        return transport

    def _refused(self) -> HostError:
        said = f"the host does not listen on {LOOPBACK}:{self._port} for us: its sshd forbids it, or the port is taken"
        mend = _MEND.format(host=self._address.name)
        return HostError(fail(FailureKind.HOST_UNFIT, seen(said, self._address), remedy=mend))

    def _keep(self) -> None:
        while not self._ended.wait(_CHECK_S):
            if not self._transport.is_active():
                with suppress(HostError):  # the host is away, or has not noticed yet that the old connection is gone
                    self._transport = self._opened()

    def _welcome(self, channel: paramiko.Channel, *_: object) -> None:
        """Called in the library's own thread, which must not wait."""
        threading.Thread(target=self._carry, args=(channel,), name=f"to {self._to}", daemon=True).start()

    def _carry(self, channel: paramiko.Channel) -> None:
        """One connection, both ways, until both have ended; each end is passed on."""
        try:
            link = socket.create_connection((LOOPBACK, self._to))
        except OSError:  # to whoever connected there, the connection ends at once
            channel.close()
            return
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with link:
            hang_up = partial(link.shutdown, socket.SHUT_WR)
            back = threading.Thread(target=_pump, args=(channel.recv, link.sendall, hang_up), daemon=True)
            back.start()
            if not _pump(link.recv, channel.sendall, channel.shutdown_write):
                channel.close()
            back.join()
        channel.close()


def _pump(take: Callable[[int], bytes], give: Callable[[bytes], object], end: Callable[[], object]) -> bool:
    """Carry until the source ends, and pass the end on; False when either side broke."""
    try:
        while data := take(_CHUNK_BYTES):
            give(data)
        end()
    except BROKEN:
        return False
    return True
