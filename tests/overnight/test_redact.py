from __future__ import annotations

import itertools
import re

from hypothesis import given
from hypothesis import strategies as st

from overnight.redact import Mask, fingerprint

KEY = b"sk-live-0123456789abcdef"
SECRETS = st.lists(st.text("ab", min_size=2, max_size=6).map(str.encode), min_size=1, max_size=3)
STREAM = st.text("abx", max_size=60).map(str.encode)


def whole(secrets: list[bytes], stream: bytes) -> bytes:
    """What masking must come to: leftmost first, the longest secret that fits."""
    longest_first = sorted(secrets, key=len, reverse=True)
    return re.sub(b"|".join(map(re.escape, longest_first)), lambda match: b"*" * len(match[0]), stream)


@given(SECRETS, STREAM, st.lists(st.integers(0, 60)))
def test_the_same_is_masked_wherever_the_chunks_break(secrets: list[bytes], stream: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    mask = Mask(secrets)
    given_out = b"".join(mask.feed(stream[a:b]) for a, b in itertools.pairwise(places))
    assert given_out + mask.flush() == whole(secrets, stream)


@given(SECRETS, STREAM, st.integers(0, 60))
def test_starting_anew_where_the_output_ended_changes_nothing(secrets: list[bytes], stream: bytes, cut: int) -> None:
    first, second = Mask(secrets), Mask(secrets)
    written = first.feed(stream[:cut])
    assert written + second.feed(stream[len(written) :]) + second.flush() == whole(secrets, stream)


def test_only_what_may_be_a_secret_is_held_back() -> None:
    mask = Mask([KEY])
    assert mask.feed(b"a whole line\n") == b"a whole line\n"
    assert mask.feed(b"key=sk-li") == b"key="
    assert mask.held == 5
    assert mask.feed(b"ne\n") == b"sk-line\n"


def test_a_key_cut_off_by_the_end_is_masked() -> None:
    mask = Mask([KEY])
    assert mask.feed(b"key=" + KEY[:-1]) + mask.flush() == b"key=" + b"*" * (len(KEY) - 1)


def test_without_secrets_nothing_changes() -> None:
    mask = Mask([b""])
    assert mask.feed(bytes(range(256))) + mask.flush() == bytes(range(256))


def test_a_fingerprint_tells_keys_apart_within_a_batch_and_leads_nowhere_else() -> None:
    assert fingerprint("sk-one", "night-1") == fingerprint("sk-one", "night-1")
    assert fingerprint("sk-one", "night-1") != fingerprint("sk-two", "night-1")
    assert fingerprint("sk-one", "night-1") != fingerprint("sk-one", "night-2")
    assert len(fingerprint("sk-one", "night-1")) == 12
