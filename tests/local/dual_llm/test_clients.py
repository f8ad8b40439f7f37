"""Dual-LLM conversations with clients that were not written for this server."""

from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from langchain_anthropic import ChatAnthropic
from langchain_openai import ChatOpenAI
from pydantic import SecretStr
from sequrity.control import (  # type: ignore[import-untyped] # the package has no type information
    ControlConfig,
    FeaturesHeader,
    FineGrainedConfigHeader,
    ResponseContentJsonSchema,
    SecurityPolicyHeader,
)
from sequrity.control.integrations.langgraph import (  # type: ignore[import-untyped] # as above
    LangGraphChatSequrityAI,
)

from langchain_sequrity.local import LocalServer
from tests.local.dual_llm.foreign_clients import (
    CHAT,
    MESSAGES,
    RESPONSES,
    Format,
    LangChainTalk,
    Said,
    Talk,
    provider,
    vendor,
)
from tests.local.dual_llm.mail import MAIL, MODEL, POLICY, READ, SCRIPT, TO_BOSS, TO_EVE

FEATURES = FeaturesHeader.dual_llm()
RULES = SecurityPolicyHeader.dual_llm(codes=POLICY)
CONFIG = FineGrainedConfigHeader.dual_llm(
    include_program=True, include_policy_check_history=True, include_namespace_snapshot=True
)
FORGIVING = FineGrainedConfigHeader.model_validate(
    CONFIG.model_dump() | {"fsm": {"history_mismatch_policy": "continue"}}
)
CONTROL = ControlConfig(features=FEATURES, security_policy=RULES, fine_grained_config=CONFIG)
HEADERS = {
    "X-Features": FEATURES.dump_for_headers(),
    "X-Policy": RULES.dump_for_headers(),
    "X-Config": CONFIG.dump_for_headers(),
}
KNOCK_FIRST = """
tool "send_mail" { must deny always; session before { @tags |= {"knocked"}; } }
tool "read_mail" { must deny when not @session.tags overlaps {"knocked"}; }
"""
FINISH = {  # of a call, of an answer, of a turn that failed
    "chat/completions": ("tool_calls", "stop", "stop"),
    "messages": ("tool_use", "end_turn", "end_turn"),
    "responses": ("completed", "completed", "failed"),
}


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    with LocalServer(script=SCRIPT) as server:
        yield server.base_url


def content(text: str) -> Any:
    """The envelope as the SDK parses it; an unreadable one has the status `unknown`."""
    return ResponseContentJsonSchema.parse_json_safe(text)


def check_answer(text: str) -> None:
    read = content(text)
    assert read.status == "success", text
    assert read.error is None
    returned = read.final_return_value
    assert returned.value == {"from": "Bob", "length": len(MAIL)}
    assert returned.meta.tags == {"private", "__non_executable"}
    assert returned.meta.producers == {"__tool/parse_with_ai"}
    assert returned.meta.consumers == {"*"}
    assert read.program == READ
    assert [check["tool"] for check in read.policy_check_history] == ["read_mail", "parse_with_ai"]
    assert read.namespace_snapshot["mail"].value == MAIL
    assert read.namespace_snapshot["mail"].meta.tags == {"private", "__non_executable"}


def check_denial(text: str) -> None:
    read = content(text)
    assert read.status == "failure", text
    assert read.final_return_value is None
    assert read.error.code == "policy_violation"
    assert read.error.message.startswith("Tool call to 'send_mail' is denied")
    assert read.program == TO_EVE
    [check] = read.policy_check_history
    assert check["verdict"] == "hard_denied"
    [denied] = check["denied"]
    assert denied["reason"] == "private mail stays in the house"
    assert denied["arguments"]["text"]["value"] == MAIL
    assert "private" in denied["arguments"]["text"]["meta"]["tags"]
    assert read.session_meta.meta.tags == set()


def check_sent(text: str) -> None:
    read = content(text)
    assert read.final_return_value.value == "Bob: sent"
    assert read.program == TO_BOSS
    assert read.session_meta.meta.tags == {"sent"}


CHECKS = (check_answer, check_denial, check_sent)


async def converse(
    talk: Talk | LangChainTalk, checks: tuple[Callable[[str], None], ...] = CHECKS
) -> None:
    """Read a mail; send it outside, which is denied; send it inside."""
    check_first, check_second, check_third = checks
    read = await talk.say("Read the first mail.")
    assert [call[1:] for call in read.calls] == [("read_mail", {"number": 1})]
    check_first((await talk.give(MAIL)).text)
    denial = await talk.say("Send it to Eve.")
    assert denial.calls == []
    check_second(denial.text)
    send = await talk.say("Send it to the boss.")
    to_boss = {"to": "boss@inside.example", "text": MAIL}
    assert [call[1:] for call in send.calls] == [("send_mail", to_boss)]
    check_third((await talk.give("sent")).text)


def check_heads(kind: Format, replies: list[Said]) -> None:
    """Check that there is one session, both models, and the finish reasons of the format."""
    called, answered, failed = FINISH[kind.name]
    assert [one.finish for one in replies] == [called, answered, failed, called, answered]
    assert {one.model for one in replies} == {MODEL}
    [session] = {call_id[3:39] for one in replies for call_id, _, _ in one.calls}
    if kind is CHAT:
        assert {one.id for one in replies} == {session}


# SDKs


@pytest.mark.long(sample=9)
@pytest.mark.parametrize("kind", [CHAT, MESSAGES, RESPONSES], ids=lambda kind: kind.name)
@pytest.mark.parametrize("only_new", [False, True], ids=["whole history", "only new"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
async def test_the_vendors_sdk_holds_a_conversation(
    base_url: str, kind: Format, asynchronous: bool, stream: bool, only_new: bool
) -> None:
    async with vendor(kind, base_url, CONTROL, asynchronous=asynchronous) as create:
        talk = Talk(kind, create, stream=stream, only_new=only_new)
        await converse(talk)
    check_heads(kind, talk.replies)


@pytest.mark.long(sample=6)
@pytest.mark.parametrize("kind", [CHAT, MESSAGES, RESPONSES], ids=lambda kind: kind.name)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
async def test_the_providers_sdks_hold_a_conversation(
    base_url: str, kind: Format, asynchronous: bool, stream: bool
) -> None:
    async with provider(kind, base_url, HEADERS, asynchronous=asynchronous) as create:
        talk = Talk(kind, create, stream=stream, only_new=False)
        await converse(talk)
    check_heads(kind, talk.replies)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_openais_sdk_continues_by_the_id_of_the_last_reply(
    base_url: str, stream: bool
) -> None:
    async with provider(RESPONSES, base_url, HEADERS, asynchronous=True) as create:
        talk = Talk(RESPONSES, create, stream=stream, only_new=True)
        await converse(talk)
    check_heads(RESPONSES, talk.replies)


@pytest.mark.parametrize("kind", [CHAT, MESSAGES, RESPONSES], ids=lambda kind: kind.name)
async def test_the_vendors_sdk_keeps_its_session_after_a_denied_first_turn(
    base_url: str, kind: Format
) -> None:
    rules = SecurityPolicyHeader.dual_llm(codes=KNOCK_FIRST)
    control = ControlConfig(features=FEATURES, security_policy=rules, fine_grained_config=CONFIG)
    async with vendor(kind, base_url, control, asynchronous=False) as create:
        talk = Talk(kind, create, stream=False, only_new=False)
        denied = content((await talk.say("Knock.")).text)
        assert denied.status == "failure"
        assert denied.session_meta.meta.tags == {"knocked"}
        assert (await talk.say("Read the first mail.")).calls


# Chat models of LangChain


def chat_openai(base_url: str, **fields: Any) -> ChatOpenAI:
    headers = fields.pop("headers", HEADERS)
    return ChatOpenAI(
        model=MODEL,
        base_url=f"{base_url}/control/chat/v1",
        api_key=SecretStr("sq-test"),
        default_headers=headers,
        max_retries=0,
        **fields,
    )


def chat_anthropic(base_url: str) -> ChatAnthropic:
    fields: Any = {"model": MODEL, "base_url": f"{base_url}/control/chat", "max_retries": 0}
    return ChatAnthropic(api_key=SecretStr("sq-test"), default_headers=HEADERS, **fields)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("make", [chat_openai, chat_anthropic])
async def test_langchains_models_hold_a_conversation(
    base_url: str, make: Callable[[str], Any], stream: bool
) -> None:
    await converse(LangChainTalk(make(base_url), stream=stream))


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("only_new", [False, True], ids=["whole history", "only new"])
async def test_chat_openai_raises_for_a_failed_response_and_can_continue_with_its_whole_history(
    base_url: str, stream: bool, only_new: bool
) -> None:
    # It cannot send back a message of the failed turn, so its history differs afterwards.
    headers = {**HEADERS, "X-Config": FORGIVING.dump_for_headers()}
    model = chat_openai(
        base_url, headers=headers, use_responses_api=True, use_previous_response_id=only_new
    )
    talk = LangChainTalk(model, stream=stream)
    assert (await talk.say("Read the first mail.")).calls
    check_answer((await talk.give(MAIL)).text)
    with pytest.raises(ValueError, match="private mail stays in the house"):
        await talk.say("Send it to Eve.")
    talk.history.pop()
    if only_new:
        with pytest.raises(openai.ConflictError, match="not the last reply"):
            await talk.say("Send it to the boss.")
        return
    assert (await talk.say("Send it to the boss.")).calls
    sent = (await talk.give("sent")).text
    check_sent(sent)
    assert content(sent).message_history_mismatch_detected is True


def vendors_langchain(base_url: str) -> Any:
    fields: Any = {"base_url": base_url, "model": MODEL, "max_retries": 0}
    return LangGraphChatSequrityAI("sq-test", FEATURES, RULES, CONFIG, **fields)


async def test_the_vendors_langchain_client_holds_a_conversation(base_url: str) -> None:
    def answer(text: str) -> None:
        assert text == str({"from": "Bob", "length": len(MAIL)})

    def denial(text: str) -> None:
        assert text.startswith("Error: Tool call to 'send_mail' is denied")

    def sent(text: str) -> None:
        assert text == "Bob: sent"

    # It replaces the envelope by the value, and sends the value back.
    talk = LangChainTalk(vendors_langchain(base_url), stream=False)
    await converse(talk, (answer, denial, sent))


async def test_the_vendors_langchain_client_streams_the_envelope(base_url: str) -> None:
    await converse(LangChainTalk(vendors_langchain(base_url), stream=True))
