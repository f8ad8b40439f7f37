"""The Vercel AI SDK, in a process of Node that runs `ai_sdk.mjs`."""

import json
import shutil
import subprocess
from collections.abc import Callable, Mapping
from functools import cache, partial
from itertools import count
from pathlib import Path
from typing import Any

from tests.local.clients.answers import (
    PARAMETERS,
    WEATHER,
    Answer,
    Reason,
    Row,
    Target,
    Tool,
    schema_of,
)

HERE = Path(__file__).parent
MODULES = HERE.parents[2] / ".cache" / "clients"
_numbers = count()


def is_installed() -> bool:
    return shutil.which("node") is not None and (MODULES / "node_modules" / "ai").is_dir()


def version_of(package: str) -> str:
    text = (MODULES / "node_modules" / package / "package.json").read_text()
    version: str = json.loads(text)["version"]
    return version


@cache
def node() -> "subprocess.Popen[str]":
    """One process for all tests; it ends when its input does."""
    return subprocess.Popen(  # noqa: S603 - the arguments are constant
        [str(shutil.which("node")), str(HERE / "ai_sdk.mjs"), str(MODULES)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def stop() -> None:
    if node.cache_info().currsize:
        with node() as process:
            assert process.stdin is not None
            process.stdin.close()
        node.cache_clear()


class AiSdk:
    """A conversation that the process keeps."""

    def __init__(self, provider: str, target: Target, tools: Mapping[str, Tool]) -> None:
        self._tools = tools
        self._order = {
            "conversation": next(_numbers),
            "provider": provider,
            "origin": target.origin,
            "key": target.key,
            "model": target.model,
            "retries": target.retries,
            "tools": {name: schema_of(name) for name in PARAMETERS if name in tools},
        }

    def _send(self, **order: Any) -> dict[str, Any]:
        process = node()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps({**self._order, **order}) + "\n")
        process.stdin.flush()
        reply: dict[str, Any] = json.loads(process.stdout.readline())
        for name, value in reply["calls"]:
            self._tools[name](value)
        if "error" in reply:
            raise Reason(**reply["error"])
        return reply

    def say(self, prompt: str, *, stream: bool = False) -> Answer:
        reply = self._send(prompt=prompt, stream=stream)
        inputs, outputs = reply["tokens"]
        return Answer(reply["text"], reply["end"], None, (inputs, outputs), reply["pieces"])

    def fill(self, prompt: str) -> Mapping[str, Any]:
        values: dict[str, Any] = self._send(prompt=prompt, schema=WEATHER)["values"]
        return values


def provider(name: str) -> Callable[[Target, Mapping[str, Tool]], AiSdk]:
    return partial(AiSdk, name)


_OPENAI = "createOpenAI({ baseURL: `${gateway}/control/chat/v1`, apiKey: key })"
_COMPATIBLE = (
    'createOpenAICompatible({ name: "gateway", '
    "baseURL: `${gateway}/control/chat/v1`, apiKey: key })"
)
_ANTHROPIC = "createAnthropic({ baseURL: `${gateway}/control/chat/v1`, apiKey: key })"
ROWS = [
    Row(
        "Vercel AI SDK, `openai.chat()`",
        "@ai-sdk/openai",
        provider("openai chat"),
        "finishReason",
        "",
        f'{_OPENAI}.chat("assistant")',
    ),
    Row(
        "Vercel AI SDK, `openai()`",
        "@ai-sdk/openai",
        provider("openai responses"),
        "finishReason",
        "",
        f'{_OPENAI}("assistant")',
    ),
    Row(
        "Vercel AI SDK, `openai-compatible`",
        "@ai-sdk/openai-compatible",
        provider("openai-compatible"),
        "finishReason",
        "",
        f'{_COMPATIBLE}("assistant")',
    ),
    Row(
        "Vercel AI SDK, `anthropic()`",
        "@ai-sdk/anthropic",
        provider("anthropic"),
        "finishReason",
        "",
        f'{_ANTHROPIC}("assistant")',
    ),
]
