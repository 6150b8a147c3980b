"""Whether a host's disk has room for another run."""

from __future__ import annotations

from overnight.failures import Evidence, FailureKind, HostError, fail


def check_room(free_bytes: int, floor_bytes: int, host: str) -> None:
    """Refuse to begin what would fill a disk on which other runs are at work.

    Raises:
        HostError: less than `floor_bytes` are free.
    """
    if free_bytes >= floor_bytes:
        return
    seen = f"{free_bytes / 1e6:.0f} MB are free where runs lie, min_free_bytes is {floor_bytes / 1e6:.0f} MB"
    proof = Evidence(source="host", seen=seen, where=host)
    raise HostError(fail(FailureKind.DISK_FULL, proof, names={"host": host}))
