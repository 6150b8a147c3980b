"""Provider keys from the command line: saved, listed, tried, replaced, removed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from pathlib import Path

from pydantic import SecretStr

from blocks import saved
from blocks.keys import SavedKey, reveal, saved_keys
from blocks.provider_credentials import SLUG, ProviderCredentials
from flows.api import prefect_api
from flows.progress import Progress
from flows.state import state_directory
from overnight import keyshape, layers
from overnight.failures import BadInput, FailureError
from overnight.keycheck import KeyCheck, KeyQuestion, check_key, key_question, unusable


def save_key(
    provider: str, key: str, state: Path | None, environ: Mapping[str, str], expires_on: date | None = None
) -> str:
    """Check and save; returns what to say. An older key of the provider is replaced, unasked and untried.

    Raises:
        BadInput: unknown provider, or a key that cannot be one or has expired. The key is in no message.
    """
    block = ProviderCredentials(provider=provider, key=SecretStr(key), expires_on=expires_on)
    with prefect_api(state_directory(state, environ), Progress(sys.stderr)):
        return _save(block, environ)


def list_keys(state: Path | None, environ: Mapping[str, str]) -> list[SavedKey]:
    """Every saved key by name; no part of any key."""
    with prefect_api(state_directory(state, environ), Progress(sys.stderr)):
        return saved_keys()


def check_keys(
    providers: Sequence[str],
    lock_path: Path | None,
    model: str | None,
    harness: str | None,
    state: Path | None,
    environ: Mapping[str, str],
    tell: Callable[[KeyCheck], None],
) -> bool:
    """Try the keys one after the other; `tell` hears each answer as it comes. Whether all were let in.

    Args:
        providers: None means all that are saved or set in the environment.

    Raises:
        BadInput: an unknown provider, model or harness; or there is no key at all.
    """
    lock = layers.in_use(lock_path, environ)
    questions = {name: key_question(lock, name, model=model, harness=harness) for name in providers}
    with prefect_api(state_directory(state, environ), Progress(sys.stderr)):
        if not providers:
            there = {key.provider for key in saved_keys()}
            there |= {name for name in lock.providers if keyshape.variable(name) in environ}
            questions = {name: key_question(lock, name, model=model, harness=harness) for name in sorted(there)}
        if not questions:
            raise BadInput(
                "command line", "PROVIDER", "no key is saved", "Save one: overnight credentials add PROVIDER"
            )
        good = True
        for name, question in questions.items():
            answer = _tried(name, question, environ)
            tell(answer)
            good = good and answer.ok
        return good


def rotate_key(
    provider: str,
    ask: Callable[[], str],
    lock_path: Path | None,
    state: Path | None,
    environ: Mapping[str, str],
    *,
    expires_on: date | None = None,
    force: bool = False,
) -> tuple[KeyCheck, str]:
    """Try a new key, then put it in the place of the saved one; returns the provider's answer and what to say.

    What was saved stays as it is unless the new key was let in or `force` is
    given; an empty saying means that it stayed.

    Args:
        ask: Called for the new key once it is known that there is one to replace.

    Raises:
        BadInput: unknown provider, none of its keys is saved, or the new key cannot be one.
    """
    question = key_question(layers.in_use(lock_path, environ), provider)
    with prefect_api(state_directory(state, environ), Progress(sys.stderr)):
        if saved.document(SLUG, provider) is None:
            mend = f"Save the first one: overnight credentials add {provider}"
            raise BadInput("command line", "PROVIDER", f"no block {SLUG}/{provider} is saved", mend)
        key = ask()
        block = ProviderCredentials(provider=provider, key=SecretStr(key), expires_on=expires_on)
        answer = check_key(question, key)
        return answer, _save(block, environ) if answer.ok or force else ""


def remove_key(provider: str, agreed: Callable[[], bool], state: Path | None, environ: Mapping[str, str]) -> bool:
    """Forget a saved key if `agreed`, which is asked once it is known to be there. Whether it was removed.

    Raises:
        BadInput: nothing is saved under this name.
    """
    with prefect_api(state_directory(state, environ), Progress(sys.stderr)):
        if saved.document(SLUG, provider) is None:
            raise saved.missing(SLUG, provider, "command line", "PROVIDER")
        return agreed() and saved.remove(SLUG, provider)


def _save(block: ProviderCredentials, environ: Mapping[str, str]) -> str:
    block.save(block.provider, overwrite=True)
    lock = layers.in_use(None, environ)
    unlike = keyshape.doubt(block.key.get_secret_value(), lock.providers[block.provider].key)
    return f"Saved as Prefect block {SLUG}/{block.provider}" + (f"\nnote: {unlike}" if unlike else "")


def _tried(provider: str, question: KeyQuestion, environ: Mapping[str, str]) -> KeyCheck:
    """The answer to whatever key a run would use."""
    try:
        return check_key(question, reveal(provider, environ))
    except FailureError as error:
        failure = error.failure
        return unusable(provider, failure.kind, [str(seen) for seen in failure.evidence], failure.remedy)
    except BadInput as error:
        return unusable(provider, None, [f"{error.where}: {error.field}: {error.problem}"], error.mend)
