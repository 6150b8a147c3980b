"""What people get wrong, one case each: where it is planted, and what the doctor must name of it."""

from __future__ import annotations

from typing import Any

from overnight.lockfile import Header
from overnight.rehearsal.faults import FaultKind
from tests.overnight.doctor import plants
from tests.overnight.doctor.plants import (
    API_KEY,
    URL,
    Plant,
    all_of,
    everywhere,
    fault,
    flags,
    key,
    key_in,
    login,
    model,
    nothing,
    patient,
    python_that,
    settings,
    url_and,
    variables,
    walled,
)
from tests.overnight.doctor.worlds import DEAD, REAL, SITES, Case

HARNESSES = CLAUDE, GOOSE, OPENCODE = "claude-code", "goose", "opencode"
TOKEN = "ANTHROPIC_AUTH_TOKEN"
VERSIONS = {status: next(v for v, known in REAL["harnesses"][CLAUDE]["versions"].items() if known["status"] == status)
            for status in ("good", "bad")}  # fmt: skip

WRONG_HEADER = ("kind:wrong-header", "layer:header")
WRONG_WIRING = ("kind:harness-usage", "layer:wiring")
WRONG_START = ("kind:harness-usage", "layer:agent")
WRONG_URL = ("kind:not-the-api", "layer:url")
WRONG_MODEL = ("kind:model-unknown", "layer:model")
NO_KEY = ("kind:key-missing", "layer:key")
REFUSED = ("kind:auth-rejected", "layer:key")
NO_MONEY = ("kind:billing", "layer:account")
NO_WAY = ("kind:network", "layer:network")
BY_HAND = "finding:fails-by-hand"

AS_SHIPPED = "mend:variables=those of the shipped lock"
FLAGS = "mend:flags=the flags of the shipped lock"
BEARER, X = "mend:header=Authorization: Bearer", "mend:header=x-api-key"
RIGHT_LOGIN = f"export {URL}={{url}} {TOKEN}={{key}}\n"
BEARER_ONLY = {"accepts": frozenset({Header.BEARER})}


def case(name: str, harness: str, where: str, plant: Plant, *expected: str, **more: Any) -> Case:
    also = frozenset(more.pop("also", ()))
    return Case(name, harness, where, plant, frozenset(expected), also=also, **more)


# fmt: off
# one case a paragraph, so that they read as a table
LOCK = (
    case("key in the variable of the other header", CLAUDE, "lock", key_in(API_KEY),
         *WRONG_HEADER, f"{BEARER}, from {TOKEN}", site=BEARER_ONLY),
    case("and the other way round", CLAUDE, "lock", key_in(TOKEN),
         *WRONG_HEADER, f"{X}, from {API_KEY}", provider="anthropic"),
    case("key in the variable of the other header", OPENCODE, "lock", key_in("OVERNIGHT_OPENCODE_API_KEY"),
         *WRONG_HEADER, f"{BEARER}, from OVERNIGHT_OPENCODE_BEARER", site=BEARER_ONLY),
    case("provider that takes Bearer alone", GOOSE, "lock", nothing,
         *WRONG_HEADER, f"{BEARER}, which goose cannot send", provider="zai", site=BEARER_ONLY),
    case("both key variables, one with an old key", CLAUDE, "lock", plants.left_over_key,
         *WRONG_WIRING, f"mend:variable=no {API_KEY}", "finding:both-key-variables", site={"refuses_both": True}),
    case("GOOSE_PROVIDER misspelt", GOOSE, "lock", lambda w: w.wiring["set"].update(GOOSE_PROVIDER="antropic"),
         *WRONG_WIRING, "mend:variable=GOOSE_PROVIDER=anthropic"),
    case("time limit of 1 ms", CLAUDE, "lock", variables(API_TIMEOUT_MS="1"),
         *WRONG_START, AS_SHIPPED, site={"wait_s": 0.5}),
    case("retries without end", CLAUDE, "lock",
         all_of(everywhere(patient(5, 8)), variables(CLAUDE_CODE_RETRY_WATCHDOG="1")),
         "kind:rate-limited", "layer:provider", "finding:retries-without-end", site=fault(FaultKind.RATE_LIMITED)),
    case("waits longer than the whole probe", CLAUDE, "lock", patient(600, 6),
         "kind:provider-mute", "layer:provider", site=fault(FaultKind.HANG)),
    case("proxy that is dead, in the lock", CLAUDE, "proxy", variables(HTTP_PROXY=DEAD),
         *WRONG_START, AS_SHIPPED),
    case("proxy that is dead, in the lock", GOOSE, "proxy", variables(HTTP_PROXY=DEAD),
         *WRONG_START, AS_SHIPPED),
    case("flag that is none", CLAUDE, "version flag", flags("--no-such-flag"),
         *WRONG_START, FLAGS),
    case("flag that is none", GOOSE, "version flag", flags("--no-such-flag"),
         *WRONG_START, FLAGS),
    case("flag of the provider's wiring", CLAUDE, "version flag", lambda w: w.wiring.update(flags=["--no-such-flag"]),
         *WRONG_START, "mend:flags=without them"),
)
URLS = (
    case("variable that Goose ignores", GOOSE, "base URL", walled(plants.instead(URL, "ANTHROPIC_HOST")),
         *WRONG_WIRING, "mend:variable=ANTHROPIC_HOST", "finding:key-ignored-by-goose"),
    case("/v1 too many", CLAUDE, "base URL", url_and("/v1"),
         *WRONG_URL, "mend:base URL=/zai", "finding:v1-in-base-url"),
    case("/v1 too many", GOOSE, "base URL", url_and("/v1"),
         *WRONG_URL, "mend:base URL=/anthropic", "finding:v1-in-base-url"),
    case("/v1 missing", OPENCODE, "base URL", plants.without_v1,
         *WRONG_START, AS_SHIPPED),
    case("path of a chat API", CLAUDE, "base URL", url_and("/chat/completions"),
         *WRONG_URL, "mend:base URL=/zai", "finding:path-in-base-url"),
    case("another port", CLAUDE, "base URL", lambda w: w.at(DEAD),
         "kind:network", "layer:url", "mend:base URL=/zai", find=True, says=("Connection refused",)),
    case("model in capitals", CLAUDE, "model", model("GLM-5.3"),
         *WRONG_MODEL, "mend:model=glm-5.3"),
    case("model with a slip", GOOSE, "model", model("claude-opus5"),
         *WRONG_MODEL, "mend:model=claude-opus-5"),
    case("model of another provider", CLAUDE, "model", model("kimi-k3"),
         *WRONG_MODEL, also=["mend:model=glm-5.3"]),
    case("model of another provider", OPENCODE, "model", model("kimi-k3"),
         *WRONG_MODEL, also=["mend:model=glm-5.3"]),
    case("another model answers", CLAUDE, "model", nothing,
         "kind:model-mismatch", "layer:model", site={"answers_as": "glm-4-flash"}),
    case("another model answers", GOOSE, "model", nothing,
         "finding:another-model", site={"answers_as": "claude-haiku-4-5"}),
)
KEYS = (
    case("in quotes", CLAUDE, "key shape", key(lambda k: f"'{k}'"), *NO_KEY, says=("holds a quote",)),
    case("with Bearer", GOOSE, "key shape", key(lambda k: f"Bearer {k}"), *NO_KEY, says=("starts with 'Bearer '",)),
    case("with a line end", CLAUDE, "key shape", key(lambda k: f"{k}\n"), *NO_KEY, says=("whitespace before",)),
    case("empty", OPENCODE, "key shape", key(lambda _: ""), *NO_KEY, says=("the key is empty",)),
    case("of another provider", GOOSE, "key shape", key(lambda _: SITES["openrouter"].key),
         *REFUSED, "finding:key-unlike-provider"),
    case("of another region", CLAUDE, "key", key(lambda _: SITES["minimax-cn"].key),
         *REFUSED, "mend:region or plan=minimax-cn (/minimax-cn)",
         provider="minimax", site={"keys_elsewhere": (SITES["minimax-cn"].key,)}, find=True),
    case("revoked", CLAUDE, "key", nothing, *REFUSED, site={"key": "another"}),
    case("revoked", OPENCODE, "key", nothing, *REFUSED, site={"key": "another"}),
    case("no balance, as ZhiPu says it", CLAUDE, "account", nothing, *NO_MONEY, site={"balance": False}),
    case("no credit, as Anthropic says it", GOOSE, "account", nothing, *NO_MONEY, site={"balance": False}),
    case("no balance, as DeepSeek says it", OPENCODE, "account", nothing,
         *NO_MONEY, provider="deepseek", site={"balance": False}),
    case("no credits, as OpenRouter says it", GOOSE, "account", nothing,
         *NO_MONEY, provider="openrouter", site={"balance": False}),
    case("window used up, inside HTTP 200", CLAUDE, "account", nothing, "kind:quota-window", "layer:account",
         site=fault(FaultKind.STREAM_ERROR, says=FaultKind.WINDOW_USED_UP, at_once=True)),
    case("plan without the model", CLAUDE, "account", nothing, "kind:plan-expired", "layer:account",
         site={"models": SITES["zai"].models[1:], "outside_plan": SITES["zai"].models[:1]}),
    case("plan for other clients", CLAUDE, "account", nothing, "kind:request-rejected", "layer:request",
         provider="alibaba-coding", site={"clients": ("opencode/",)}),
    case("place that is not served", GOOSE, "account", nothing, "kind:request-rejected", "layer:request",
         site={"serves_here": False}),
)
LOGINS = (
    case("old key at the top of .bashrc", CLAUDE, "rc file",
         all_of(login(". ~/.bashrc\n"), login(f"export {API_KEY}=old-0123456789 {URL}={{url}}\n", file=".bashrc")),
         f"shadow:{API_KEY}@~/.bashrc", BY_HAND),
    case("dead URL in .profile", CLAUDE, "rc file", login(f"export {URL}={{dead}} {TOKEN}={{key}}\n"),
         f"shadow:{URL}@~/.profile", BY_HAND),
    case("dead proxy in .bash_profile", CLAUDE, "proxy",
         login(RIGHT_LOGIN + "export HTTP_PROXY={dead} HTTPS_PROXY={dead}\n", file=".bash_profile"),
         "shadow:HTTPS_PROXY@~/.bash_profile", "finding:network-settings-left-out", BY_HAND,
         says=("in ~/.bash_profile:2",)),
    case("BASH_ENV", CLAUDE, "environment", login("export BASH_ENV=~/.every.sh\n"),
         "shadow:BASH_ENV@~/.profile", says=("code-by-variable in ~/.profile:1",)),
    case("NODE_OPTIONS with a module that is gone", OPENCODE, "environment",
         login('export NODE_OPTIONS="--require /nowhere/hook.js"\n'),
         "shadow:NODE_OPTIONS@~/.profile", says=("code-by-variable in ~/.profile:1",)),
    case("old key in sshd's SetEnv", CLAUDE, "environment", nothing,
         f"shadow:{API_KEY}@a command over ssh", BY_HAND, set_env=f"{API_KEY}=old-0123456789 {URL}={{url}}"),
    case("both key variables", CLAUDE, "environment", login(RIGHT_LOGIN + f"export {API_KEY}={{key}}\n"),
         f"shadow:{API_KEY}@~/.profile", BY_HAND, says=("both-key-variables",), site={"refuses_both": True}),
    case("switch to a cloud left on", CLAUDE, "environment",
         login(RIGHT_LOGIN + "export CLAUDE_CODE_USE_BEDROCK=1 CLAUDE_CODE_SKIP_BEDROCK_AUTH=1 "
               "AWS_REGION=nowhere ANTHROPIC_BEDROCK_BASE_URL={dead}\n"),
         "shadow:CLAUDE_CODE_USE_BEDROCK@~/.profile", BY_HAND, says=("cloud-switch-left-on in ~/.profile:2",)),
    case("GOOSE_PROVIDER of another time", GOOSE, "environment",
         login("export GOOSE_PROVIDER=openai OPENAI_HOST={dead} OPENAI_API_KEY=old-0123456789\n"),
         "shadow:GOOSE_PROVIDER@~/.profile", BY_HAND),
    case("a login that happens to be right", CLAUDE, "environment", all_of(key_in(API_KEY), login(RIGHT_LOGIN)),
         *WRONG_HEADER, f"{BEARER}, from {TOKEN}", "finding:works-by-accident", site=BEARER_ONLY),
)
SETTINGS = (
    case("another URL in the user's settings", CLAUDE, "settings file",
         settings(".claude/settings.json", f'{{"env": {{"{URL}": "{{dead}}"}}}}\n', beside=RIGHT_LOGIN),
         f"shadow:{URL}@~/.claude/settings.json", BY_HAND, says=("settings-file-wins in ~/.claude/settings.json",)),
    case("apiKeyHelper", CLAUDE, "settings file",
         settings(".claude/settings.json", '{"apiKeyHelper": "echo old-012345"}\n', beside=f"export {URL}={{url}}\n"),
         "shadow:apiKeyHelper@~/.claude/settings.json", BY_HAND),
    case("settings that are no JSON", CLAUDE, "settings file",
         settings(".claude/settings.json", '{"env": {\n', beside=RIGHT_LOGIN),
         says=("file-broken in ~/.claude/settings.json",)),
    case("login that others may read", CLAUDE, "settings file",
         settings(".claude/.credentials.json", '{"claudeAiOauth": {}}\n', beside=RIGHT_LOGIN, mode=0o644),
         "shadow:claudeAiOauth@~/.claude/.credentials.json", "finding:login-readable"),
    case("Goose's own configuration", GOOSE, "settings file",
         settings(".config/goose/config.yaml", "GOOSE_PROVIDER: openai\nOPENAI_HOST: {dead}\n",
                  beside=f"export ANTHROPIC_HOST={{url}} {API_KEY}={{key}} OPENAI_API_KEY=old-0123456789\n"),
         "shadow:GOOSE_PROVIDER@~/.config/goose/config.yaml", BY_HAND),
    case("OpenCode's own configuration", OPENCODE, "settings file",
         settings(".config/opencode/opencode.json", '{"provider": {"zai": {"options": {"baseURL": "{dead}"}}}}\n'),
         "shadow:provider.zai.options.baseURL@~/.config/opencode/opencode.json"),
    case(".netrc that others may read", GOOSE, "settings file",
         settings(".netrc", "machine 127.0.0.1 login me password old-0123456789\n", mode=0o644),
         "shadow:machine 127.0.0.1@~/.netrc", "finding:login-readable"),
    case("settings of the repository are read", CLAUDE, "repo settings", plants.redirected,
         f"shadow:{URL}@./.claude/settings.json", "finding:repository-redirects-key"),
    case("MCP servers of the repository are started", CLAUDE, "repo settings", plants.servers,
         "shadow:mcpServers.tickets@./.mcp.json", "finding:repository-brings"),
    case("configuration of the repository is read", OPENCODE, "repo settings", plants.plugins,
         "shadow:provider.overnight.options.baseURL@./opencode.json", "finding:repository-brings"),
)
HOSTS = (
    case("two hours behind", CLAUDE, "clock", python_that(plants.CLOCK_BEHIND),
         "finding:clock-off", says=("clock is behind by 7",)),
    case("few open files", GOOSE, "host", python_that("ulimit -n 256"), "finding:open-files-low", says=("ulimit -n",)),
    case("no agent", OPENCODE, "host", plants.no_agent,
         "kind:harness-missing", "layer:agent", "finding:harness-missing"),
    case("agent where runs do not look", CLAUDE, "host", plants.agent_elsewhere,
         "kind:harness-missing", "layer:agent", "finding:harness-missing", says=(".local/bin to the host's path",)),
    case("bad version first on the path", CLAUDE, "host", plants.bad_copy_first(VERSIONS["bad"]),
         *WRONG_START, f"mend:version={VERSIONS['good']}", "finding:version-that-hangs"),
    case("agent that fails once, under a lock of one's own", CLAUDE, "host",
         all_of(plants.fails_once, variables(API_TIMEOUT_MS="14000")),
         "kind:harness-crashed", "layer:agent", "finding:comes-and-goes"),
    case("name that does not resolve", CLAUDE, "DNS", everywhere(lambda w: w.at("http://no-such-host.invalid")),
         *NO_WAY, says=("the name does not resolve",)),
    case("certificate that nobody signed", CLAUDE, "TLS", nothing, *NO_WAY, tls=True,
         says=("the TLS handshake failed", "certificate")),
    case("certificate that nobody signed", GOOSE, "TLS", nothing, *NO_WAY, tls=True,
         says=("the TLS handshake failed", "certificate")),
    case("https where http is spoken", CLAUDE, "TLS", everywhere(lambda w: w.at(w.url.replace("http", "https"))),
         *NO_WAY, says=("the TLS handshake failed",)),
    case("nobody listens", GOOSE, "base URL", everywhere(lambda w: w.at(DEAD)), *NO_WAY, says=("no connection",)),
    case("no answer", GOOSE, "provider", everywhere(patient(4, 8)),
         "kind:provider-mute", "layer:provider", site=fault(FaultKind.HANG)),
    case("a page to log in", CLAUDE, "provider", nothing, *WRONG_URL, site=fault(FaultKind.HTML_PAGE)),
)
CASES = (*LOCK, *URLS, *KEYS, *LOGINS, *SETTINGS, *HOSTS)

WELL = (
    *(case("nothing is wrong", harness, "nowhere", nothing) for harness in HARNESSES),
    case("a model that thinks for 3 s", CLAUDE, "nowhere", nothing, site={"wait_s": 3}),
    case("a login that is right", CLAUDE, "nowhere", login(RIGHT_LOGIN)),
    case("greetings in login files", GOOSE, "nowhere",
         all_of(login(". ~/.bashrc\necho welcome\n"), login("[ -t 1 ] && echo 'hello, you'\n", file=".bashrc"))),
    case("key of another provider by its own name", GOOSE, "nowhere", login("export DEEPSEEK_API_KEY=sk-0123456789\n")),
    case("settings that only colour", CLAUDE, "nowhere", settings(".claude/settings.json", '{"theme": "dark"}\n')),
    case("settings of the repository, kept out", CLAUDE, "nowhere",
         lambda w: w.commit(".claude/settings.json", f'{{"env": {{"{URL}": "{DEAD}"}}}}')),
    case("a gate that only the agent passes", CLAUDE, "nowhere", nothing,
         provider="alibaba-coding", site={"clients": ("claude-cli/",)}),
)
# fmt: on
