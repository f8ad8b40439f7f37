"""A client that decides like the vendor's example client: by texts in the envelope.

It reads `status` and the finish reason, and tells a denial from a failure by searching the text of
the reply (`docs/protocol.md`, Dual-LLM content).
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langchain_sequrity.local import LocalServer
from tests.chat_models.formats import NAMES
from tests.local.api import CHAT, events, tool
from tests.local.dual_llm.conversation import Stage, Teller
from tests.local.dual_llm.dialog import headers

ALLOWED, DENIED, FAILED = "success", "denied by policies", "unexpected error"
DENIALS = ("denied by argument checking policies", "program violated control flow policies")
LATER_DENIALS = (*DENIALS, "Control flow violation")
FIDELITIES = ("full", "documented")
MODEL = "any/planner,any/worker"
TOOLS = [tool("look_up"), tool("send")]
FINAL = {"full": {"stop"}, "documented": {"stop", "error"}}
SEND = 'final_return_value = send(word=look_up(word="a"))'
# Texts that a client which searches for words might take for a verdict.
BAIT = [*LATER_DENIALS, '"denied": [{', "{'denied': [{", '\\"denied\\": [{"', "Zoë", "😀"]
FREE_TEXT = st.one_of(st.sampled_from(BAIT), st.text(max_size=20))


@pytest.fixture(scope="module", params=FIDELITIES)
def service(request: pytest.FixtureRequest) -> Iterator[tuple[Any, Stage]]:
    with Stage(fidelity=request.param) as stage:
        yield request.param, stage


def verdict(
    server: LocalServer,
    model: str,
    run: Callable[[str, dict[str, Any]], str],
    *,
    final: set[str],
    denials: tuple[str, ...] = DENIALS,
    **sent: Any,
) -> str:
    """Run a turn and return the verdict of the example client."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Go"}]
    with httpx.Client() as http:
        while True:
            reply = http.post(
                server.base_url + CHAT,
                json={"model": model, "messages": messages, "tools": TOOLS},
                headers={"Authorization": "Bearer any", **headers(**sent)},
            ).json()
            [choice] = reply["choices"]
            messages.append(choice["message"])
            if choice["finish_reason"] == "tool_calls":
                for call in choice["message"]["tool_calls"]:
                    named = call["function"]
                    content = run(named["name"], json.loads(named["arguments"]))
                    told = {"role": "tool", "tool_call_id": call["id"], "content": content}
                    messages.append(told)
                continue
            if choice["finish_reason"] not in final:
                return FAILED
            text = choice["message"]["content"]
            body = json.loads(text)
            if body["status"] != "failure":
                return ALLOWED
            if any(words in text for words in denials):
                assert body["error"]["message"]
                return DENIED
            if '"denied": [{' in text:
                assert body["policy_check_history"]
                return DENIED
            assert body["error"]["message"]
            return FAILED


BRANCHING = {"mode": "deny", "tags": ["seen"], "producers": [], "consumers": []}
SEEN = 'tool "look_up" -> @tags |= {"seen"};\n'
CASES: dict[str, tuple[str, dict[str, Any], str]] = {
    "nothing is denied": (SEND, {"codes": {"code": SEEN}}, ALLOWED),
    "a rule allows": (SEND, {"codes": {"code": 'tool "send" { must allow always; }'}}, ALLOWED),
    "a hard rule denies": (SEND, {"codes": {"code": 'tool "send" { must deny always; }'}}, DENIED),
    "a soft rule denies": (
        SEND,
        {"codes": {"code": 'tool "send" { should deny always; }'}},
        DENIED,
    ),
    "the labels deny": (
        SEND,
        {"codes": {"code": SEEN + 'tool "send" { must deny when word.tags overlaps {"seen"}; }'}},
        DENIED,
    ),
    "no rule allows": (SEND, {"presets": {"default_allow": False}}, DENIED),
    "no rule allows, which is hard": (
        SEND,
        {"presets": {"default_allow": False, "default_allow_enforcement_level": "hard"}},
        DENIED,
    ),
    "the verdict is in doubt": (
        SEND,
        {"codes": {"code": 'tool "send" { must deny when word.value in {int 5..6}; }'}},
        DENIED,
    ),
    "the branch is forbidden": (
        "x = look_up(word='a')\nif x: pass\nfinal_return_value = x",
        {
            "mode": "custom",
            "codes": {"code": SEEN},
            "presets": {"branching_meta_policy": BRANCHING},
        },
        DENIED,
    ),
    "the program raises": ("x = look_up(word='a')\n1 / 0", {}, FAILED),
    "the program is refused": ("import os", {}, FAILED),
    "the program exits with an error": ("x = look_up(word='a')\nexit(2)", {}, FAILED),
    "the program exits": ("x = look_up(word='a')\nfinal_return_value = 1\nexit()", {}, ALLOWED),
    "the value has no JSON form": ("final_return_value = float('nan')", {}, FAILED),
}
"""Program, X-Policy, and what the client has to say."""
REPORTS = st.fixed_dictionaries(
    {
        name: st.booleans()
        for name in (
            "include_program",
            "include_policy_check_history",
            "include_namespace_snapshot",
        )
    }
)


@pytest.mark.long(sample=2)
@pytest.mark.parametrize("name", CASES)
def test_a_client_that_searches_the_envelope_recognises_every_verdict(
    service: tuple[Any, Stage], name: str
) -> None:
    fidelity, stage = service
    program, policy, expected = CASES[name]
    # Only successful turns have such texts in their data: then the client looks only at the status.
    results = FREE_TEXT if expected == ALLOWED else st.sampled_from([5.0, 6.0])

    @settings(max_examples=8)
    @given(results, REPORTS, st.sampled_from([DENIALS, LATER_DENIALS]))
    def check(result: Any, reports: dict[str, bool], denials: tuple[str, ...]) -> None:
        said = verdict(
            stage.server,
            stage.cast(Teller("planner", program)),
            lambda _name, _arguments: json.dumps(result),
            final=FINAL[fidelity],
            denials=denials,
            policy=policy,
            config={"fsm": {"max_pllm_steps": 1}, "response_format": reports},
        )
        assert said == expected

    check()


# Serialization


def as_python_writes(text: str) -> bool:
    return text == json.dumps(json.loads(text))


REQUESTS: dict[str, Callable[[list[dict[str, Any]]], dict[str, Any]]] = {
    "chat/completions": lambda items: {"messages": items, "tools": TOOLS},
    "messages": lambda items: {
        "messages": items,
        "max_tokens": 99,
        "tools": [{"name": "send", "input_schema": {"type": "object"}}],
    },
    "responses": lambda items: {
        "input": items,
        "tools": [{"type": "function", "name": "send", "parameters": {"type": "object"}}],
    },
}


def written(reply: httpx.Response) -> tuple[str, ...]:
    """The text of a reply and the arguments of its call, as sent."""
    if reply.headers["content-type"].startswith("text/event-stream"):
        found = [piece for data in events(reply.content) for piece in streamed(data)]
    else:
        found = [*whole(reply.json())]
    return tuple("".join(one for kind, one in found if kind == name) for name in ("text", "call"))


def whole(body: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for choice in body.get("choices", ()):
        yield "text", choice["message"]["content"]
        for call in choice["message"].get("tool_calls") or ():
            yield "call", call["function"]["arguments"]
    for item in body.get("output", ()):
        yield "call", item.get("arguments", "")
        for part in item.get("content", ()):
            yield "text", part["text"]
    for block in body.get("content", ()):
        yield "text", block.get("text", "")


def streamed(data: str) -> Iterator[tuple[str, str]]:
    event = {} if data == "[DONE]" else json.loads(data)
    for choice in event.get("choices", ()):
        yield "text", choice["delta"].get("content") or ""
        for call in choice["delta"].get("tool_calls") or ():
            yield "call", call["function"].get("arguments") or ""
    delta: Any = event.get("delta")
    if event.get("type") == "content_block_delta":
        yield "text", delta.get("text", "")
        yield "call", delta.get("partial_json", "")
    elif event.get("type") == "response.output_text.delta":
        yield "text", delta
    elif event.get("type") == "response.function_call_arguments.delta":
        yield "call", delta


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_envelopes_and_arguments_are_written_as_json_dumps_writes_them(
    stage: Stage, name: str, stream: bool
) -> None:
    @settings(max_examples=12)
    @given(st.dictionaries(FREE_TEXT, st.one_of(FREE_TEXT, st.floats(-1e30, 1e30)), max_size=3))
    def check(value: dict[str, Any]) -> None:
        given_value = json.loads(json.dumps(value))
        model = stage.cast(
            Teller("planner", f"send(**{{'word': {value!r}}})", f"final_return_value = {value!r}")
        )
        url = f"{stage.server.base_url}/control/chat/v1/{name}"
        body = REQUESTS[name]([{"role": "user", "content": "Go"}])
        sent = {"Authorization": "Bearer any", **headers()}
        replies = [
            httpx.post(url, json={"model": model, "stream": stream, **body}, headers=sent)
            for _ in range(2)
        ]
        (_, arguments), (text, _) = map(written, replies)
        if stream or name != "messages":  # a whole message has the arguments as an object
            assert as_python_writes(arguments)
            assert json.loads(arguments) == {"word": given_value}
        assert as_python_writes(text)
        assert json.loads(text)["final_return_value"]["value"] == given_value

    check()
