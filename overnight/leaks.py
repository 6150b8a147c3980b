"""Secrets in added lines: the detectors of detect-secrets alone, which ask nobody whether a secret works."""

from __future__ import annotations

import re

from detect_secrets.plugins import (
    artifactory,
    aws,
    azure_storage_key,
    basic_auth,
    discord,
    github_token,
    gitlab_token,
    jwt,
    mailchimp,
    npm,
    openai,
    private_key,
    pypi_token,
    sendgrid,
    slack,
    square_oauth,
    stripe,
    telegram_token,
    twilio,
)
from detect_secrets.plugins.base import RegexBasedDetector

# a line of a minified file is looked at in pieces: some patterns take the square of its length
_PIECE, _OVERLAP = 4_000, 300


class _NewerTokens(RegexBasedDetector):
    """What detect-secrets 1.5 does not know yet."""

    secret_type = "Token of a model provider or a forge"  # noqa: S105  # a name
    denylist = (
        re.compile(r"\bsk-ant-[A-Za-z0-9_-]{20,}"),
        re.compile(r"\bsk-(?:proj|svcacct|or-v1)-[A-Za-z0-9_-]{20,}"),
        re.compile(r"\bgithub_pat_[A-Za-z0-9_]{40,}"),
        re.compile(r"\bAIza[A-Za-z0-9_-]{35}"),
        re.compile(r"\bhf_[A-Za-z0-9]{30,}"),
    )


# left out: words like `password = "..."`, high entropy, IP addresses and bare 32-digit hashes, which mostly find
# what is none; a guard that cries wolf is switched off
DETECTORS = (
    artifactory.ArtifactoryDetector(),
    aws.AWSKeyDetector(),
    azure_storage_key.AzureStorageKeyDetector(),
    basic_auth.BasicAuthDetector(),
    discord.DiscordBotTokenDetector(),
    github_token.GitHubTokenDetector(),
    gitlab_token.GitLabTokenDetector(),
    jwt.JwtTokenDetector(),
    mailchimp.MailchimpDetector(),
    npm.NpmDetector(),
    openai.OpenAIDetector(),
    private_key.PrivateKeyDetector(),
    pypi_token.PypiTokenDetector(),
    sendgrid.SendGridDetector(),
    slack.SlackDetector(),
    square_oauth.SquareOAuthDetector(),
    stripe.StripeDetector(),
    telegram_token.TelegramBotTokenDetector(),
    twilio.TwilioKeyDetector(),
    _NewerTokens(),
)


def detector_of(line: bytes) -> str | None:
    """Name of the first detector that sees a secret in a line; None when none does. Says where, never what."""
    text = line.decode("utf-8", "replace")
    pieces = [text[at : at + _PIECE] for at in range(0, max(len(text), 1), _PIECE - _OVERLAP)]
    return next((each.secret_type for each in DETECTORS if any(_found(each, piece) for piece in pieces)), None)


def _found(detector: RegexBasedDetector, text: str) -> bool:
    return any(True for _ in detector.analyze_string(text))
