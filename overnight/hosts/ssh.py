"""A host over SSH: one connection, many channels, every fault of the library named.

paramiko is used by its `Transport`, not by `SSHClient`: the client's files can
deadlock the transport thread when they are collected (paramiko issue 2685),
and it sets no socket option, which costs 45 ms a command (Nagle against
delayed ACK) and never notices a dead peer.
"""

from __future__ import annotations

import logging
import random
import signal
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

import paramiko
from paramiko.common import MSG_CHANNEL_REQUEST
from paramiko.message import Message
from paramiko.pkey import UnknownKeyType

from overnight.failures import FailureKind, HostError, fail
from overnight.hosts.forward import Forward
from overnight.hosts.known import accepted, fingerprint
from overnight.hosts.protocol import ERRORS_BYTES, Channel
from overnight.hosts.translate import BROKEN, seen, translate
from overnight.hosts.translate import SshAddress as SshAddress  # as: who names a host takes it from here

# paramiko writes tracebacks to standard error when nobody configured logging; everything it
# has to say reaches us as an exception. A level on its own logger configures nobody else's.
logging.getLogger("paramiko").setLevel(logging.CRITICAL + 1)

HANDSHAKES = 6  # sshd drops strangers at 10 (MaxStartups 10:30:100); 100 logins through 6 at a time all got in
CONNECT_S = 10.0
BANNER_S = 10.0
SEND_BYTES = 32768
SLOT_S = 0.2
_JITTER = random.SystemRandom()  # not the shared one, whose state a program may have set and rely on
_K = FailureKind

_gates: dict[tuple[str, int], threading.BoundedSemaphore] = {}
_gates_lock = threading.Lock()


class SshHost:
    """A host reached with one SSH connection, dialled when needed and again after `drop`.

    Args:
        address: Where and with which key.
        patience_s: How long `connect` keeps trying when the host is full or not there.
    """

    def __init__(self, address: SshAddress, *, patience_s: float = 20.0) -> None:
        self.address = address
        self._patience_s = patience_s
        self._dialling = threading.Lock()
        self._transport: paramiko.Transport | None = None
        self._closed = threading.Event()

    @property
    def name(self) -> str:
        return self.address.name

    def connect(self) -> None:
        self._connected()

    def open(self, command: str, timeout_s: float = 20.0) -> Channel:
        """Start a command; a full connection (MaxSessions) is waited for, up to `timeout_s`."""
        transport = self._connected()
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                channel = transport.open_session(timeout=timeout_s)
                channel.exec_command(command)
                return SshChannel(channel, self.address)
            except paramiko.ChannelException as error:
                if time.monotonic() >= deadline or self._closed.wait(SLOT_S):
                    raise translate(error, self.address) from error
            except BROKEN as error:
                raise translate(error, self.address) from error

    def forward(self, port: int, to: int) -> Forward:
        """By a connection of its own, which `drop` leaves alone; one that breaks is dialled again."""
        return Forward(self._dial, self.address, port, to)

    def drop(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()

    def close(self) -> None:
        self._closed.set()
        self.drop()

    def _connected(self) -> paramiko.Transport:
        with self._dialling:
            transport = self._transport
            if transport is None or not transport.is_active():
                self.drop()
                transport = self._transport = self._dial()
            return transport

    def _dial(self) -> paramiko.Transport:
        """Shake hands, again and again while the failure is one that time mends."""
        deadline = time.monotonic() + self._patience_s
        pause_s = 0.25
        while True:
            try:
                with _gate(self.address):
                    return self._handshake()
            except (*BROKEN, UnknownKeyType) as error:
                failed = translate(error, self.address)
                wait_s = _JITTER.uniform(0, pause_s)
                if failed.failure.kind is not _K.HOST_UNREACHABLE or time.monotonic() + wait_s > deadline:
                    raise failed from error
            if self._closed.wait(wait_s):
                raise HostError(fail(_K.HOST_UNREACHABLE, seen("closed while dialling", self.address)))
            pause_s = min(4.0, pause_s * 2)

    def _handshake(self) -> paramiko.Transport:
        key = _key(self.address.key_file)
        where = self.address
        pins = accepted(where.host_key, where.known_hosts, where.address, where.port)
        transport = _Transport(open_socket(self.address))
        transport.banner_timeout = BANNER_S
        try:
            _prefer(transport, pins)
            _prefer_gcm(transport)
            negotiate(transport)
            _check(transport.get_remote_server_key(), pins, self.address)
            transport.auth_publickey(self.address.user, key)
        except BaseException:  # whatever stops us, the connection must not stay behind
            transport.close()
            raise
        return transport


class SshChannel:
    """One command over SSH. Standard error has its own reader: both share one window, and a full one stops both."""

    def __init__(self, channel: paramiko.Channel, address: SshAddress) -> None:
        self._channel = channel
        self._address = address
        self._errors = bytearray()
        self._drained = threading.Thread(target=self._drain, name=f"stderr of {address.name}", daemon=True)
        self._drained.start()

    def send(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            try:
                at += self._channel.send(data[at : at + SEND_BYTES])
            except TimeoutError:
                continue  # the timeout belongs to a reader; the command is only slow to take it
            except BROKEN as error:
                self._check_link(error)
                return

    def close_input(self) -> None:
        try:
            self._channel.shutdown_write()
        except BROKEN as error:
            self._check_link(error)

    def recv(self, limit: int, timeout_s: float | None) -> bytes:
        self._channel.settimeout(timeout_s)
        try:
            data = self._channel.recv(limit)
        except TimeoutError:
            raise
        except BROKEN as error:  # reading sends too: it opens the window again
            raise translate(error, self._address) from error
        # a command that ended says so; is_active() would lag behind a connection that broke just now
        if not data and not self._channel.eof_received and not self._ended():
            raise translate(EOFError("the connection ended"), self._address)
        return data

    def errors(self) -> bytes:
        self._drained.join(0.5)  # at the end of a command its last words are on their way
        return bytes(self._errors)

    def exit_code(self, timeout_s: float) -> int:
        if not self._channel.status_event.wait(timeout_s):
            raise TimeoutError("the command still runs")
        if not self._ended():
            raise translate(EOFError("the connection ended before the command did"), self._address)
        if self._signal() is not None:
            return -int(getattr(signal, f"SIG{self._signal()}", signal.SIGKILL))
        return self._channel.exit_status

    def close(self) -> None:
        with suppress(*BROKEN):
            self._channel.close()

    def _ended(self) -> bool:
        return self._channel.exit_status >= 0 or self._signal() is not None

    def _signal(self) -> str | None:
        return getattr(self._channel, "exit_signal", None)

    def _check_link(self, error: Exception) -> None:
        """Raise if the connection is gone. A command that went away by itself is no fault of the link."""
        if not self._channel.get_transport().is_active():
            raise translate(error, self._address) from error

    def _drain(self) -> None:
        while True:
            try:
                data = self._channel.recv_stderr(SEND_BYTES)
            except TimeoutError:
                continue
            except BROKEN:
                return  # whoever reads the output meets the same and says it
            if not data:
                return
            self._errors += data
            del self._errors[:-ERRORS_BYTES]


def _read_request(channel: paramiko.Channel, message: Message) -> None:
    """Keep the signal that ended a command; paramiko 5.1 throws that message away."""
    copy = Message(message.asbytes())
    copy.get_int()
    if copy.get_text() == "exit-signal":
        copy.get_boolean()
        channel.exit_signal = copy.get_text()  # type: ignore[attr-defined]  # our own mark on their record
    channel._handle_request(message)  # type: ignore[attr-defined]  # private there; the host contract tests it


class _Transport(paramiko.Transport):
    _channel_handler_table = {  # noqa: RUF012  # type: ignore[attr-defined]  # as the library has it
        **paramiko.Transport._channel_handler_table,  # type: ignore[attr-defined]  # same
        MSG_CHANNEL_REQUEST: _read_request,
    }

    def get_exception(self) -> Exception | None:
        """What ended the connection, as one of BROKEN: of a packet that was altered on its way the library says
        `InvalidTag`, which is of another family.
        """
        error = super().get_exception()
        if error is None or isinstance(error, BROKEN):
            return error
        return paramiko.SSHException(f"what came cannot be read: {error!r}")


def _key(path: Path) -> paramiko.PKey:
    try:
        return paramiko.PKey.from_path(path)
    except TypeError as error:  # so the library below says that a passphrase is missing
        raise paramiko.PasswordRequiredException(str(path)) from error
    except ValueError as error:
        raise UnknownKeyType(str(path), b"") from error


def negotiate(transport: paramiko.Transport) -> None:
    try:
        transport.start_client(timeout=CONNECT_S + BANNER_S)
    except BROKEN:
        raise
    except Exception as error:  # the library's thread raises here whatever a stranger's bytes made it meet
        raise paramiko.SSHException(f"the peer does not speak SSH as we know it: {error!r}") from error


def _gate(address: SshAddress) -> threading.BoundedSemaphore:
    with _gates_lock:
        return _gates.setdefault((address.address, address.port), threading.BoundedSemaphore(HANDSHAKES))


def open_socket(address: SshAddress) -> socket.socket:
    """A connection that sends at once and notices a dead peer within 20 s."""
    link = socket.create_connection((address.address, address.port), timeout=CONNECT_S)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    options = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 15_000}
    for name, value in options.items():
        if hasattr(socket, name):  # macOS lacks some
            link.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return link


def _prefer(transport: paramiko.Transport, pins: frozenset[str]) -> None:
    """Ask for a kind of key we can check, before any other the host may have."""
    kinds = {pin.split()[0] for pin in pins}
    options = transport.get_security_options()
    offered = list(options.key_types)
    options.key_types = sorted(offered, key=lambda kind: kind.replace("rsa-sha2-512", "ssh-rsa") not in kinds)


def _prefer_gcm(transport: paramiko.Transport) -> None:
    """Ask for AES-GCM before the other ciphers; all of them stay on offer, for servers that have none of it.

    It seals a packet in one step. With paramiko's own first choice, CTR, each is
    hashed in another: a quarter of our processor time for a large pack, and 0.2 s of
    the 2.6 s that 200 MB took (paramiko 5.1, OpenSSH 9.2, 2 cores, 2026-11-29).
    """
    options = transport.get_security_options()
    options.ciphers = sorted(options.ciphers, key=lambda name: "-gcm" not in name)


def _check(key: paramiko.PKey, pins: frozenset[str], address: SshAddress) -> None:
    shown = f"{key.get_name()} {key.get_base64()}"
    if shown in pins:
        return
    if not pins:
        evidence = seen(f"the host shows {key.fingerprint}; to pin it: host_key: {shown}", address)
        raise HostError(fail(_K.HOST_KEY_UNKNOWN, evidence, names={"host": address.name}))
    expected = ", ".join(sorted(fingerprint(pin) for pin in pins))
    evidence = seen(f"the host shows {key.get_name()} {key.fingerprint}, expected is {expected}", address)
    raise HostError(fail(_K.HOST_KEY_MISMATCH, evidence, names={"host": address.name}))
