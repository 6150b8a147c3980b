"""Where agents, shells and git look for what nobody gave them: files of a home, of a system, of a repository.

What the lock's `shadows` say of a place counts before what is said here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from overnight.doctor.records import Weight

Wins = Literal["over-environment", "when-missing", "adds", "shell-only", "unverified"]
Kind = Literal["shell", "json", "keys", "netrc", "git", "is-there"]


@dataclass(frozen=True)
class Place:
    """A file, or a pattern of files. `~/` is the user's home, `./` the repository worked on.

    `keys` are dotted patterns in JSON, and names in files that are read by line;
    there the names to look out for are found anyway. `weight` is what it weighs
    when nothing keeps it from a run.
    """

    path: str
    kind: Kind
    keys: tuple[str, ...] = ()
    harnesses: tuple[str, ...] = ()
    wins: Wins = "unverified"
    finding: str = "shadow-file"
    weight: Weight = "error"
    holds_login: bool = False


_CLAUDE, _CLAUDE_KEYS = ("claude-code",), ("env.*", "model", "apiKeyHelper", "hooks")
_OPENCODE_KEYS = ("provider.*.options.apiKey", "provider.*.options.baseURL", "model", "small_model", "mcp.*", "plugin")
_OPENCODE_LINES = ("apiKey", "baseURL", "model", "small_model", "mcp", "plugin")
_CODEX_KEYS = ("model", "model_provider", "base_url", "env_key", "experimental_bearer_token")
_QWEN_KEYS = ("env.*", "security.auth.*", "model.name", "modelProviders")
_PI_KEYS = ("retry.*", "shellPath", "shellCommandPrefix", "extensions", "packages")
_GIT_KEYS = (
    *("core.hookspath", "core.fsmonitor", "init.templatedir", "commit.gpgsign"),
    *("url.insteadof", "http.proxy", "https.proxy", "http.sslverify"),
)

SHELL = tuple(
    Place(path, "shell", wins="shell-only", finding="login-file")
    for path in (
        *("~/.bashrc", "~/.bash_profile", "~/.bash_login", "~/.profile", "~/.bash_aliases"),
        *("~/.zshenv", "~/.zprofile", "~/.zshrc", "~/.zlogin", "~/.config/fish/config.fish", "~/.cshrc", "~/.tcshrc"),
        *("~/.pam_environment", "~/.ssh/environment", "~/.ssh/rc", "~/.config/environment.d/*.conf"),
        *("/etc/environment", "/etc/security/pam_env.conf", "/etc/profile", "/etc/profile.d/*.sh"),
        *("/etc/bash.bashrc", "/etc/bashrc", "/etc/zshenv", "/etc/zsh/zshenv", "/etc/zshrc", "/etc/zsh/zshrc"),
    )
)
ON_HOST = (
    *SHELL,
    Place("~/.claude/settings.json", "json", _CLAUDE_KEYS, _CLAUDE, "over-environment", "settings-file-wins"),
    Place("~/.claude.json", "json", ("primaryApiKey", "oauthAccount", "mcpServers.*"), _CLAUDE, "when-missing"),
    Place(
        *("~/.claude/.credentials.json", "json", ("*",), _CLAUDE, "when-missing", "login-file-replaces-key"),
        holds_login=True,
    ),
    *(
        Place(
            f"{folder}/managed-settings.json", "json", _CLAUDE_KEYS, _CLAUDE, "over-environment", "settings-file-wins"
        )
        for folder in ("/etc/claude-code", "/Library/Application Support/ClaudeCode")
    ),
    Place("~/.config/goose/config.yaml", "keys", ("extensions",), ("goose",)),
    Place("~/.config/goose/secrets.yaml", "keys", (), ("goose",), holds_login=True),
    Place("~/.config/goose/custom_providers/", "is-there", (), ("goose",), "adds"),
    Place("~/.config/opencode/opencode.json", "json", _OPENCODE_KEYS, ("opencode",)),
    Place("~/.config/opencode/opencode.jsonc", "keys", _OPENCODE_LINES, ("opencode",)),
    Place("~/.local/share/opencode/auth.json", "json", ("*.key", "*.access"), ("opencode",), holds_login=True),
    Place("~/.codex/config.toml", "keys", _CODEX_KEYS, ("codex",)),
    Place("~/.codex/.env", "shell", (), ("codex",), "over-environment", holds_login=True),
    Place("~/.codex/auth.json", "json", ("*_API_KEY", "tokens"), ("codex",), holds_login=True),
    Place("~/.qwen/settings.json", "json", _QWEN_KEYS, ("qwen",)),
    Place("~/.qwen/oauth_creds.json", "json", ("access_token",), ("qwen",), holds_login=True),
    Place("~/.qwen/.env", "shell", (), ("qwen",), holds_login=True),
    Place("~/.pi/agent/models.json", "json", ("providers.*.apiKey", "providers.*.baseUrl"), ("pi",)),
    Place("~/.pi/agent/auth.json", "json", ("*.key", "*.access"), ("pi",), holds_login=True),
    Place("~/.copilot/mcp-config.json", "json", ("mcpServers.*",), ("copilot",), "adds"),
    Place("~/.netrc", "netrc", wins="adds", finding="login-file", holds_login=True),
    *(
        Place(path, "git", _GIT_KEYS, wins="adds", finding="git-configuration", weight="warning")
        for path in ("~/.gitconfig", "~/.config/git/config", "/etc/gitconfig")
    ),
)
IN_REPOSITORY = (
    *(
        Place(f"./.claude/{name}", "json", _CLAUDE_KEYS, _CLAUDE, "over-environment", "repository-redirects-key")
        for name in ("settings.json", "settings.local.json")
    ),
    Place("./.mcp.json", "json", ("mcpServers.*",), _CLAUDE, "adds", "repository-brings"),
    Place("./opencode.json", "json", _OPENCODE_KEYS, ("opencode",), finding="repository-brings"),
    Place("./opencode.jsonc", "keys", _OPENCODE_LINES, ("opencode",), finding="repository-brings"),
    Place("./.opencode", "is-there", (), ("opencode",), finding="repository-brings"),
    Place("./.codex/config.toml", "keys", _CODEX_KEYS, ("codex",), finding="repository-brings"),
    Place("./.qwen/settings.json", "json", _QWEN_KEYS, ("qwen",), finding="repository-brings"),
    Place("./.env", "shell", (), ("qwen",), finding="repository-brings"),
    Place("./.pi/settings.json", "json", _PI_KEYS, ("pi",), "over-environment", "repository-brings"),
    Place("./.pi/extensions", "is-there", (), ("pi",), finding="repository-brings"),
    Place("./.envrc", "shell", wins="shell-only", finding="repository-brings"),
    Place(
        "./.npmrc",
        "keys",
        ("registry", "proxy", "https-proxy"),
        wins="adds",
        weight="note",
        finding="repository-brings",
    ),
)
FOLDERS = (
    *("~/.local/bin", "~/bin", "~/.claude/local", "~/.opencode/bin", "~/.npm-global/bin", "~/.npm/bin", "~/.bun/bin"),
    *("~/.nvm/versions/node/*/bin", "~/.volta/bin", "~/.asdf/shims", "~/.local/share/mise/shims", "~/.cargo/bin"),
    *("/opt/homebrew/bin", "/home/linuxbrew/.linuxbrew/bin", "/snap/bin", "/usr/local/bin", "/usr/bin"),
)
"""Where agents get installed, beside the folders that a host's `path` names."""

PROXIES = ("*_proxy", "*_PROXY")
CERTIFICATES = ("NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
INJECTS = ("NODE_OPTIONS", "LD_PRELOAD", "DYLD_INSERT_LIBRARIES", "BASH_ENV", "ENV", "PYTHONSTARTUP")
OTHERS = ("NODE_TLS_REJECT_UNAUTHORIZED", "NODE_PATH", "PYTHONPATH", "XDG_CONFIG_HOME", "GIT_*")
GENERIC = (*PROXIES, *CERTIFICATES, *INJECTS, *OTHERS)
"""Variables that reach any agent, whatever the lock knows."""
