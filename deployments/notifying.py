"""The notification block that `--notify TYPE/NAME` means: one that is saved, or one made of an address.

An address of a webhook or a mailbox lets whoever knows it write there, so it is
a secret: it comes from the environment, from standard input or from a prompt.
"""

from __future__ import annotations

import getpass
import sys
from collections.abc import Mapping
from typing import Literal
from uuid import UUID

from apprise import Apprise
from prefect.blocks.notifications import (
    AppriseNotificationBlock,
    MicrosoftTeamsWebhook,
    SlackWebhook,
)
from prefect.client.orchestration import SyncPrefectClient
from prefect.exceptions import ObjectNotFound
from pydantic import SecretStr

from overnight.failures import BadInput
from overnight.lockfile import suggest

VARIABLE = "OVERNIGHT_NOTIFY_URL"
Source = Literal["env", "stdin", "ask"]

# types that every server knows by itself, whoever runs it; each hands its address to Apprise as it stands
_ANY = SlackWebhook
_TYPES: Mapping[str, type[AppriseNotificationBlock]] = {
    "apprise": _ANY,
    "slack-webhook": SlackWebhook,
    "ms-teams-webhook": MicrosoftTeamsWebhook,
}


def notification_block(
    client: SyncPrefectClient, written: str, source: Source | None, environ: Mapping[str, str]
) -> tuple[UUID, str]:
    """The saved block that `TYPE/NAME` names, made or renewed where an address is given; its id, and a line about it.

    Args:
        source: Where the address comes from. None: the environment, where it is set there; else no address is given.

    Raises:
        BadInput: there is no such block and no address for it, or the address is none. Never shows it.
    """
    slug, found, name = written.partition("/")
    url = _address(source, environ)
    if url is not None:
        return _made(client, _type(written, slug if found else ""), name, url)
    real = _TYPES[slug].get_block_type_slug() if slug in _TYPES else slug
    try:
        return client.read_block_document_by_name(name, real).id, f"block {real}/{name}: unchanged"
    except ObjectNotFound:
        problem = f"no saved block {written!r}"
        mend = f"Give its address: set {VARIABLE}, or --notify-from ask or stdin; or save it on the pages, Blocks"
        raise BadInput("command line", "--notify", problem, mend) from None


def _address(source: Source | None, environ: Mapping[str, str]) -> str | None:
    if source is None and not environ.get(VARIABLE):
        return None
    if source == "stdin":
        url = sys.stdin.readline().strip()
    elif source == "ask":
        url = getpass.getpass("Address (a webhook's, or any of Apprise's, e.g. mailtos://user:password@host): ").strip()
    else:
        url = environ.get(VARIABLE, "").strip()
    where = {"stdin": "standard input", "ask": "the answer"}.get(source or "", f"environment {VARIABLE}")
    if not url or not Apprise().add(url):
        problem = "is no address that Apprise can send to" if url else "is empty"
        raise BadInput(where, "address", problem, "Write e.g. https://hooks.slack.com/services/..., json://host/path")
    return url


def _type(written: str, slug: str) -> type[AppriseNotificationBlock]:
    if slug not in _TYPES:
        problem = f"{written!r} names no type that is made of an address"
        raise BadInput("command line", "--notify", problem, suggest(slug, [f"{each}/NAME" for each in _TYPES]))
    return _TYPES[slug]


def _made(client: SyncPrefectClient, block: type[AppriseNotificationBlock], name: str, url: str) -> tuple[UUID, str]:
    slug = block.get_block_type_slug()
    did = "created"
    try:
        known = client.read_block_document_by_name(name, slug)
        if known.data.get("url") == url:
            return known.id, f"block {slug}/{name}: unchanged"
        did = "updated"
    except ObjectNotFound:
        pass
    block(url=SecretStr(url)).save(name, overwrite=True)
    return client.read_block_document_by_name(name, slug).id, f"block {slug}/{name}: {did}"
