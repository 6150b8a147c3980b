"""TCP connections as the kernel tells them, by the inode of their socket, and who asks a name server."""

from __future__ import annotations

import os
import socket
import struct
from typing import TYPE_CHECKING

from overnight.sampler.notes import text_of

if TYPE_CHECKING:  # nothing of this exists at run time: the host may be 3.8
    from collections.abc import Iterator
    from typing import Any

    Json = dict[str, Any]

ANSWER_S = 5
STATES = ["?", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT", "CLOSE", "CLOSE_WAIT"]
STATES += ["LAST_ACK", "LISTEN", "CLOSING"]  # by their numbers in the kernel
DULL = ("?", "TIME_WAIT", "CLOSE", "LISTEN")
PEER_ENDED = ("CLOSE_WAIT", "LAST_ACK", "CLOSING")
TCP_INFO = {"retransmits": ("B", 2), "backoff": ("B", 4), "last_sent": ("I", 44), "last_received": ("I", 52)}
TCP_INFO.update({"received": ("Q", 128), "sent": ("Q", 200), "sent_again": ("Q", 208)})  # the last two as of 4.19


def by_netlink() -> dict[int, Json]:
    """Every TCP connection of this network name space that is neither listening nor over, by its inode."""
    found: dict[int, Json] = {}
    states = sum(1 << number for number, name in enumerate(STATES) if name not in DULL)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4) as kernel:  # NETLINK_SOCK_DIAG
        kernel.settimeout(ANSWER_S)
        for family in (socket.AF_INET, socket.AF_INET6):
            # SOCK_DIAG_BY_FAMILY as a request to dump; protocol TCP; with the extension INET_DIAG_INFO
            kernel.send(struct.pack("=IHHIIBBBBI48x", 72, 20, 0x301, 1, 0, family, socket.IPPROTO_TCP, 2, 0, states))
            for message in messages(kernel):
                inode, row = connection(message)
                found[inode] = row
    return found


def messages(kernel: socket.socket) -> Iterator[bytes]:
    while True:
        data = kernel.recv(1 << 17)
        while data:
            size, kind = struct.unpack_from("=IH", data)
            if kind == 3:  # NLMSG_DONE
                return
            if kind == 2:  # NLMSG_ERROR
                raise OSError(-struct.unpack_from("=i", data, 16)[0], "netlink")
            yield data[16:size]
            data = data[(size + 3) & ~3 :]


def connection(message: bytes) -> tuple[int, Json]:
    """An inet_diag_msg with its attributes."""
    family, state = message[0], message[1]
    local, remote = struct.unpack_from(">HH", message, 4)
    receive_queue, send_queue, _, inode = struct.unpack_from("=IIII", message, 56)
    size = 4 if family == socket.AF_INET else 16
    row: Json = {"state": STATES[state], "send_queue_bytes": send_queue, "receive_queue_bytes": receive_queue}
    row["local"] = place(family, message[8 : 8 + size], local)
    row["remote"] = place(family, message[24 : 24 + size], remote)
    at = 72
    while at + 4 <= len(message):
        length, kind = struct.unpack_from("=HH", message, at)
        if kind == 2:  # INET_DIAG_INFO
            row.update(counters(message[at + 4 : at + length], row["state"]))
        at += max(4, (length + 3) & ~3)
    return inode, row


def counters(info: bytes, state: str) -> Json:
    """Of a tcp_info, which is shorter on older kernels: what it lacks is None."""
    read: dict[str, Any] = {}
    for name, (kind, at) in TCP_INFO.items():
        enough = len(info) >= at + struct.calcsize("=" + kind)
        read[name] = struct.unpack_from("=" + kind, info, at)[0] if enough else None
    sent = None if read["sent"] is None else read["sent"] - (read["sent_again"] or 0)
    received = read["received"]
    if received and state in PEER_ENDED:
        received -= 1  # the end itself is counted as a byte
    return {
        "retransmits": read["retransmits"],
        "backoff": read["backoff"],
        "sent_bytes": sent,
        "received_bytes": received,
        "last_sent_s": read["last_sent"] / 1000 if sent else None,
        "last_received_s": read["last_received"] / 1000 if received else None,
    }


def place(family: int, address: bytes, port: int) -> str:
    text = socket.inet_ntop(family, address)
    if text.startswith("::ffff:") and "." in text:
        text = text[7:]
    return f"[{text}]:{port}" if ":" in text else f"{text}:{port}"


def by_table(net: str) -> dict[int, Json]:
    """The same from /proc, which knows states and queues only; for other name spaces and where netlink is refused."""
    found: dict[int, Json] = {}
    for words in rows(net, "tcp"):
        state = STATES[int(words[3], 16)] if int(words[3], 16) < len(STATES) else "?"
        if state in DULL:
            continue
        send_queue, receive_queue = (int(part, 16) for part in words[4].split(":"))
        row: Json = {"state": state, "send_queue_bytes": send_queue, "receive_queue_bytes": receive_queue}
        row.update(local=unhexed(words[1]), remote=unhexed(words[2]), retransmits=int(words[6], 16))
        found[int(words[9])] = row
    return found


def asked(net: str) -> dict[int, str]:
    """Sockets that are connected to a name server, by inode."""
    return {int(words[9]): unhexed(words[2]) for words in rows(net, "udp") if words[2].endswith(":0035")}


def rows(net: str, protocol: str) -> Iterator[list[str]]:
    for name in (protocol, protocol + "6"):
        if os.path.exists(f"{net}/{name}"):
            yield from (line.split() for line in text_of(f"{net}/{name}").splitlines()[1:])


def unhexed(words: str) -> str:
    address, port = words.split(":")
    raw = b"".join(struct.pack("=I", int(address[at : at + 8], 16)) for at in range(0, len(address), 8))
    return place(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, raw, int(port, 16))
