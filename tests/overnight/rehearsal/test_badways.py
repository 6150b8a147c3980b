from __future__ import annotations

import socket
import ssl
from urllib.parse import urlsplit

import httpx
import pytest

from overnight.rehearsal import badways
from overnight.rehearsal.certificate import Flaw
from overnight.rehearsal.provider import EmulatedProvider
from overnight.rehearsal.site import Site
from tests.overnight.rehearsal.conftest import KEY


def test_a_port_that_refuses_is_nobody_elses(bare: httpx.Client) -> None:
    with badways.refused() as url:
        with pytest.raises(httpx.ConnectError, match="refused"):
            bare.get(url)
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", urlsplit(url).port))


def test_a_mute_port_takes_a_connection_and_says_nothing(bare: httpx.Client) -> None:
    with badways.mute() as url:
        with pytest.raises(httpx.ReadTimeout):
            bare.get(url, timeout=0.3)
        with pytest.raises(httpx.ConnectTimeout):
            bare.get(url.replace("http:", "https:"), timeout=0.3)


def test_a_full_backlog_answers_no_syn() -> None:
    with badways.unreachable() as url:
        for _ in range(3):
            with pytest.raises(TimeoutError):
                socket.create_connection(("127.0.0.1", urlsplit(url).port), timeout=0.3)


def test_a_name_that_no_dns_knows(bare: httpx.Client) -> None:
    with pytest.raises(httpx.ConnectError):
        bare.get(badways.NOWHERE)


def test_tls_on_a_plain_port_and_a_dead_proxy(provider: EmulatedProvider, bare: httpx.Client) -> None:
    with pytest.raises(httpx.ConnectError, match=r"(?i)wrong.version|record.layer"):
        bare.get(provider.url("bearer").replace("http:", "https:"))
    with (
        badways.refused() as proxy,
        httpx.Client(proxy=proxy, trust_env=False, verify=False) as client,
        pytest.raises(httpx.ConnectError, match="refused"),
    ):
        client.get(provider.url("bearer"))


@pytest.mark.parametrize(
    ("flaw", "said"),
    [(True, ""), (Flaw.EXPIRED, "certificate has expired"), (Flaw.OTHER_NAME, "(IP address )?mismatch")],
)
def test_a_certificate_has_the_flaw_it_was_given(flaw: bool | Flaw, said: str) -> None:
    with EmulatedProvider([Site("s", KEY)], tls=flaw) as running:
        trusting = ssl.create_default_context(cadata=running.certificate)
        with httpx.Client(verify=trusting, trust_env=False) as client:
            if not said:
                assert client.get(running.url("s") + "/api/hello").status_code == 200
                return
            with pytest.raises(httpx.ConnectError, match=said):
                client.get(running.url("s") + "/api/hello")
