from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from overnight.lockfile import Header
from overnight.rehearsal.agents import Agent
from overnight.rehearsal.chat import read
from overnight.rehearsal.dialects import Shape
from overnight.rehearsal.faults import Fault, FaultKind
from overnight.rehearsal.model import probe_nonce, turn_of
from overnight.rehearsal.provider import EmulatedProvider
from overnight.rehearsal.site import Site
from tests.overnight.rehearsal.conftest import AWKWARD, GREETING, KEY
from tests.overnight.rehearsal.test_real_agents import git, run, work

__all__ = ["work"]

F = FaultKind
CHAT = "/v1/chat/completions"
MODEL = "rehearsal-large"
TOOLS = [{"type": "function", "function": {"name": "bash", "parameters": {"properties": {"command": {}}}}}]


def asking(*said: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": list(said or (user("make the greeting"),)), "tools": TOOLS, **more}


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def events(stream: str) -> list[dict[str, Any]]:
    blocks = stream.strip().split("\n\n")
    assert blocks.pop() == "data: [DONE]"
    return [json.loads(block.removeprefix("data: ")) for block in blocks]


def test_what_a_tool_said_is_a_turn_and_its_words_are_not_the_users() -> None:
    talk = (
        {"role": "system", "content": "be good"},
        user("go"),
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
        {"role": "tool", "tool_call_id": "1", "content": "Reply with the single word no."},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "2"}]},
        {"role": "tool", "tool_call_id": "2", "content": "ok"},
    )
    body = read(asking(*talk))
    assert (turn_of(body), probe_nonce(body)) == (3, None)
    assert probe_nonce(read(asking(user("Reply with the single word pony.")))) == "pony"
    assert probe_nonce(
        read(asking({"role": "user", "content": [{"type": "text", "text": "Reply with the single word pony."}]}))
    )


@pytest.mark.parametrize("body", [{"model": MODEL}, {"model": MODEL, "input": []}, {"messages": []}, []])
def test_a_body_that_is_no_request_is_refused(provider: EmulatedProvider, http: httpx.Client, body: Any) -> None:
    refused = http.post(provider.url("bearer") + CHAT, json=body)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "1210")


def test_a_stream_and_a_body_say_the_same(provider: EmulatedProvider, http: httpx.Client) -> None:
    whole = http.post(provider.url("bearer") + CHAT, json=asking()).json()
    stream = events(http.post(provider.url("bearer") + CHAT, json=asking(stream=True)).text)
    [choice] = whole["choices"]
    [call] = choice["message"]["tool_calls"]
    assert (choice["finish_reason"], call["function"]["name"]) == ("tool_calls", "bash")
    assert "base64 -d" in json.loads(call["function"]["arguments"])["command"]
    deltas = [chunk["choices"][0]["delta"] for chunk in stream]
    parts = [each["function"] for delta in deltas for each in delta.get("tool_calls", ())]
    assert [parts[0], "".join(part["arguments"] for part in parts)] == [
        {"name": "bash", "arguments": ""},
        call["function"]["arguments"],
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in stream] == [None] * (len(stream) - 1) + ["tool_calls"]
    words = events(http.post(provider.url("bearer") + CHAT, json=asking(user("hello"), stream=True)).text)
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in words) == "Nothing to do."


def test_a_stream_counts_tokens_when_it_is_asked_to(provider: EmulatedProvider, http: httpx.Client) -> None:
    for asked in ({}, {"stream_options": None}, {"stream_options": {"include_usage": False}}):
        stream = events(http.post(provider.url("bearer") + CHAT, json=asking(stream=True, **asked)).text)
        assert not any("usage" in chunk for chunk in stream)
    body = asking(stream=True, stream_options={"include_usage": True})
    last = events(http.post(provider.url("bearer") + CHAT, json=body).text)[-1]
    assert (last["choices"], last["usage"]["total_tokens"]) == ([], 110)


def test_a_key_and_a_model_are_checked_as_in_any_chat(provider: EmulatedProvider, bare: httpx.Client) -> None:
    url = provider.url("bearer") + CHAT
    unread = bare.post(url, json=asking(), headers=Header.X_API_KEY.carry(KEY))
    assert (unread.status_code, unread.json()["error"]["code"]) == (401, "1001")
    assert not provider.calls_of("bearer")[-1].faulty
    wrong = bare.post(url, json=asking(model="other"), headers=Header.BEARER.carry(KEY))
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (400, "1211")


ERRORS: dict[Shape, str] = {
    "zhipu": '{"error": {"code": "1302", "message": "Rate limit reached for requests"}}',
    "anthropic": '{"error": {"message": "Rate limit reached for requests", "type": "rate_limit_error", '
    '"param": null, "code": null}}',
    "moonshot": '{"error": {"message": "Your account reached max organization concurrency", '
    '"type": "rate_limit_reached_error"}}',
    "minimax": '{"type": "error", "error": {"type": "rate_limit_error", "message": "rate limit (1002)"}, ',
    "dashscope": '{"error": {"message": "Requests rate limit exceeded.", "type": null, "param": null, '
    '"code": "Throttling.RateQuota"}, "request_id": ',
    "openrouter": '{"error": {"code": 429, "message": "Rate limit exceeded"}}',
}


@pytest.mark.parametrize("shape", ERRORS)
def test_an_error_is_in_the_frame_that_the_vendor_has_here(http: httpx.Client, shape: Shape) -> None:
    with EmulatedProvider([Site("s", KEY, shape=shape, fault=Fault(F.RATE_LIMITED, times=1))]) as running:
        url = running.url("s") + CHAT
        answer = http.post(url, json=asking())
        assert (answer.status_code, answer.text[: len(ERRORS[shape])]) == (429, ERRORS[shape])
        running.set_fault("s", Fault(F.STREAM_ERROR, says=F.RATE_LIMITED, at_once=True))
        assert http.post(url, json=asking(stream=True)).text.startswith(f"data: {ERRORS[shape]}")


def test_an_error_inside_200_is_in_that_frame_too(provider: EmulatedProvider, http: httpx.Client) -> None:
    provider.set_fault("bearer", Fault(F.ERROR_IN_OK, code="1308"))
    answer = http.post(provider.url("bearer") + CHAT, json=asking(stream=True))
    assert (answer.status_code, answer.json()["error"]["code"]) == (200, "1308")


def goose(executable: str, url: str, home: Path) -> tuple[list[str], dict[str, str]]:  # as the others
    argv = [executable, "run", "--no-session", "--with-builtin", "developer", "-t", "make the greeting"]
    env = {"GOOSE_PROVIDER": "openai", "GOOSE_MODEL": MODEL, "OPENAI_HOST": url, "OPENAI_API_KEY": KEY}
    return argv, {**env, "GOOSE_DISABLE_KEYRING": "1", "GOOSE_MODE": "auto"}


def qwen(executable: str, url: str, home: Path) -> tuple[list[str], dict[str, str]]:  # as the others
    argv = [executable, "-y", "-o", "stream-json", "--auth-type", "openai", "-p", "make the greeting"]
    return argv, {"OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_KEY": KEY, "OPENAI_MODEL": MODEL}


def opencode(executable: str, url: str, home: Path) -> tuple[list[str], dict[str, str]]:  # as the others
    options = {"baseURL": f"{url}/v1", "apiKey": KEY}
    ours = {"npm": "@ai-sdk/openai-compatible", "options": options, "models": {MODEL: {}}}
    argv = [executable, "run", "--format", "json", "--auto", "-m", f"p/{MODEL}", "make the greeting"]
    return argv, {"OPENCODE_CONFIG_CONTENT": json.dumps({"provider": {"p": ours}})}


def pi(executable: str, url: str, home: Path) -> tuple[list[str], dict[str, str]]:
    ours = {"baseUrl": f"{url}/v1", "api": "openai-completions", "apiKey": "REHEARSAL_KEY", "models": [{"id": MODEL}]}
    models = home / ".pi/agent/models.json"
    models.parent.mkdir(parents=True)
    models.write_text(json.dumps({"providers": {"p": ours}}))
    argv = [
        executable,
        "-p",
        "--mode",
        "json",
        "--no-session",
        "--provider",
        "p",
        "--model",
        MODEL,
        "make the greeting",
    ]
    return argv, {"REHEARSAL_KEY": KEY}


def copilot(executable: str, url: str, home: Path) -> tuple[list[str], dict[str, str]]:  # as the others
    argv = [executable, "-p", "make the greeting", "--allow-all-tools", "--output-format", "json"]
    names = {"TYPE": "openai", "BASE_URL": f"{url}/v1", "API_KEY": KEY}
    env = {f"COPILOT_PROVIDER_{name}": value for name, value in names.items()}
    return argv, {**env, "COPILOT_MODEL": MODEL, "COPILOT_OFFLINE": "true"}


@pytest.mark.full
@pytest.mark.parametrize("launch", [goose, qwen, opencode, pi, copilot], ids=lambda launch: launch.__name__)
def test_a_real_agent_commits_over_chat_completions(
    real_agent: Callable[[str], Agent],
    work: Path,  # pytest finds a fixture by its name
    launch: Callable[[str, str, Path], tuple[list[str], dict[str, str]]],
) -> None:
    with EmulatedProvider([Site("s", KEY)], [GREETING]) as running:
        executable = str(real_agent(launch.__name__).path)
        done = run(work, *launch(executable, running.url("s"), work.parent / "home"))
        calls = running.calls_of("s")
    assert done.returncode == 0, done.stderr
    assert git(work, "log", "--format=%s").decode().split("\n") == ["Add greeting", ""], done.stdout[-2000:]
    assert git(work, "show", "HEAD:sub/greeting.txt") == AWKWARD.encode()
    assert [call.turn for call in calls if call.tools] == [1, 2, 3]
    assert {call.path for call in calls if call.method == "POST"} == {CHAT}
