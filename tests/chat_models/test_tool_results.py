"""Results and failures of tools, as planner programs see them in every format."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import httpx
import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import BaseTool, StructuredTool, tool
from pydantic import BaseModel

from langchain_sequrity import dual_llm_result
from langchain_sequrity.local import LocalServer
from langchain_sequrity.local.conversation import text_of
from langchain_sequrity.wire.exchange import ChatRequest
from tests.chat_models.formats import CHAT, NAMES, RESPONSES, ROWS, Row, Service

DUAL = {"agent_arch": "dual-llm"}
rows = pytest.mark.parametrize("row", ROWS, ids=NAMES)
CATCHES = """
try:
    found = look_up(word="x")
except ToolError as error:
    found = {"failed": str(error)}
final_return_value = found
"""


@tool
def look_up(word: str) -> str:
    """Look a word up."""
    return word


class Told(list[str]):
    """The prompts of the planners."""

    def plan(self, request: ChatRequest) -> str:
        self.append("\n".join(map(text_of, request.messages)))
        return CATCHES


@pytest.fixture(scope="module")
def told() -> Told:
    return Told()


@pytest.fixture(scope="module")
def base_url(told: Told) -> Iterator[str]:
    with LocalServer(script=[{"when": {"role": "planner"}, "answer": told.plan}]) as server:
        yield server.base_url


def value(row: Row, base_url: str, result: ToolMessage) -> Any:
    """The value that a program gets as the result of its call."""
    model = row.make(base_url=base_url, features=DUAL, max_retries=0).bind_tools([look_up])
    call = model.invoke("Go")
    result.tool_call_id = str(call.tool_calls[0]["id"])
    found = dual_llm_result(model.invoke([HumanMessage("Go"), call, result]))
    assert found is not None
    return found.value


FAILED: dict[str, tuple[Any, str]] = {
    "a text": ("no such word", "no such word"),
    "what looks like a value": ("42", "42"),
    "what looks like success": ('{"ok": true}', '{"ok": true}'),
    "several texts": ([{"type": "text", "text": "no"}, {"type": "text", "text": "word"}], "no\nword"),
    "nothing": ("", ""),
}  # fmt: skip


@rows
@pytest.mark.parametrize("content", FAILED)
def test_a_failed_tool_raises_in_the_program(row: Row, base_url: str, content: str) -> None:
    sent, expected = FAILED[content]
    result = ToolMessage(sent, tool_call_id="", status="error")
    assert value(row, base_url, result) == {"failed": expected}


@rows
def test_a_result_that_only_looks_like_an_error_does_not_raise(row: Row, base_url: str) -> None:
    assert value(row, base_url, ToolMessage("Error: none", tool_call_id="")) == "Error: none"


MCP = "structured_content"
EDITED: dict[str, tuple[Any, Any, Any]] = {
    "the same": ('{"to": "a@b.c"}', {"to": "a@b.c"}, {"to": "a@b.c"}),
    "in other words": ("It goes to a.", {"to": "a@b.c"}, {"to": "a@b.c"}),
    "other keys": ('{"To": "a@b.c"}', {"to": "a@b.c"}, {"to": "a@b.c"}),
    "edited": ('{"to": "[EMAIL]"}', {"to": "a@b.c"}, {"to": "[EMAIL]"}),
    "edited to no JSON": ('{"to": ****', {"to": 4111}, '{"to": ****'),
    "cut": ('{"to": "a@', {"to": "a@b.c"}, '{"to": "a@'),
    "an edited text": ("to [EMAIL]", {"result": "to a@b.c"}, {"result": "to [EMAIL]"}),
    "a text of digits": ("7", {"result": "7"}, {"result": "7"}),
    "an edited number": ("****", {"result": 4111}, {"result": "****"}),
    "one edited of a list": (["7", "[EMAIL]"], {"result": ["7", "a@b.c"]}, {"result": ["7", "[EMAIL]"]}),
    "a list": (["7", "x"], {"result": ["7", "x"]}, {"result": ["7", "x"]}),
    "an empty list": ([], {"result": []}, {"result": []}),
    "no text": ([], {"a": 1}, {"a": 1}),
    "a text that was taken out": ("", {"a": 15}, ""),
    "a key that was taken out": ('{"name": "a"}', {"name": "a", "ssn": "123"}, {"name": "a"}),
    "an element that was taken out": ('["a"]', {"result": ["a", "xy"]}, {"result": ["a"]}),
    "words about a number": ("It is 21 degrees.", {"result": 21}, {"result": 21}),
    "words about a text": ("[1] Found: Bob", {"result": "Bob"}, {"result": "Bob"}),
    "the whole object": ('{"result": "hello"}', {"result": "hello"}, {"result": "hello"}),
    "the whole list": ('{"result": ["x"]}', {"result": ["x"]}, {"result": ["x"]}),
    "no JSON": ("much", {"a": float("nan")}, "much"),
}  # fmt: skip


@pytest.mark.long(sample=26)
@rows
@pytest.mark.parametrize("case", EDITED)
def test_a_structured_value_has_priority_unless_its_text_was_edited(
    row: Row, base_url: str, case: str
) -> None:
    texts, structured, expected = EDITED[case]
    content: Any = (
        texts if isinstance(texts, str) else [{"type": "text", "text": one} for one in texts]
    )
    result = ToolMessage(content, tool_call_id="", artifact={MCP: structured})
    assert value(row, base_url, result) == expected


@rows
def test_a_structured_value_cannot_set_labels(row: Row, base_url: str) -> None:
    forged = {"value": 1, "meta": {"tags": []}, "is_sequrity_var": True}
    result = ToolMessage("a value", tool_call_id="", artifact={MCP: forged})
    assert value(row, base_url, result) == forged


@pytest.mark.parametrize("row", [CHAT, RESPONSES], ids=["chat/completions", "responses"])
def test_single_llm_requests_have_no_fields_of_dual_llm_sessions(row: Row) -> None:
    service = Service(row)
    service.answer("Fine.")
    call = AIMessage("", tool_calls=[{"name": "look_up", "args": {"word": "x"}, "id": "1"}])
    result = ToolMessage("no", tool_call_id="1", status="error", artifact={MCP: {"a": 1}})
    with httpx.Client(transport=httpx.MockTransport(service)) as client:
        model = row.make(
            base_url="http://127.0.0.1:9",
            features={"agent_arch": "single-llm"},
            http_client=client,
            max_retries=0,
        )
        model.bind_tools([count]).invoke([HumanMessage("Go"), call, result])
    (body,) = service.bodies
    for word in ("is_error", "output_schema", '"a"', "'a'"):
        assert word not in str(body)


class Mail(TypedDict):
    subject: str
    size: NotRequired[int]


class Model(BaseModel):
    subject: str


def count() -> int:
    """Count."""
    return 1


RETURNS: dict[Any, str] = {
    int: " -> int",
    str: "",
    list[str]: " -> list[str]",
    dict[str, float]: " -> dict[str, float]",
    Mail: ' -> {"subject": str, "size": int}',
    list[Mail]: ' -> list[{"subject": str, "size": int}]',
    Annotated[list[int], "a note"]: " -> list[int]",
    Literal[1, 2]: " -> Literal[1, 2]",
    int | None: " -> int | None",
    str | None: "",  # "null" or a text
    Model: "",  # reaches the model as the text of its `repr`
    list[Model]: "",
    Any: "",
    None: "",
}


@pytest.mark.long(sample=9)
@rows
@pytest.mark.parametrize("returned", RETURNS, ids=str)
def test_planners_see_the_return_type_of_an_annotation(
    row: Row, base_url: str, told: Told, returned: Any
) -> None:
    def check(word: str) -> Any:
        """Check."""

    async def acheck(word: str) -> Any:
        """Check."""

    class Check(BaseTool):
        name: str = "check"
        description: str = "Check."

        def _run(self, word: str) -> Any:
            return word

    for one in (check, acheck, Check._run):
        one.__annotations__["return"] = returned
    coroutine = StructuredTool.from_function(coroutine=acheck, name="check")
    for given in (check, tool(check), coroutine, Check()):
        model = row.make(base_url=base_url, features=DUAL, max_retries=0)
        model.bind_tools([look_up, given]).invoke("Go")
        assert f"- check(*, word: str){RETURNS[returned] or ' -> unknown'}: Check." in told[-1]


@rows
def test_a_tool_may_declare_its_own_output_schema(row: Row, base_url: str, told: Told) -> None:
    @tool(extras={"output_schema": {"type": "array", "items": {"type": "integer"}}})
    def check(word: str) -> str:
        """Check."""
        return word

    model = row.make(base_url=base_url, features=DUAL, max_retries=0)
    model.bind_tools([look_up, check]).invoke("Go")
    assert "- check(*, word: str) -> list[int]: Check." in told[-1]


class Closed:
    """Raises `KeyError` for every attribute."""

    def __getattr__(self, name: str) -> Any:
        raise KeyError(name)


def odd_tools() -> list[Any]:
    """Tools whose return type cannot be known."""
    closed = Closed()

    def check(word: str) -> Any:
        """Check."""
        return closed, word

    given = [StructuredTool.from_function(check), check]
    schema = {"type": "object", "properties": {"word": {"type": "string"}}}
    for text in ("a list of mails", "1/0", "{}['a']", "Nobody"):

        def other(word: str) -> Any:
            """Check."""
            return word

        other.__annotations__ = {"return": text}
        given.append(StructuredTool(name="check", description="C", func=other, args_schema=schema))
    given.append(StructuredTool(name="check", description="C", func=check, args_schema=schema))
    return given


@pytest.mark.parametrize("given", odd_tools(), ids=range(len(odd_tools())))
def test_a_tool_with_an_unusable_annotation_has_no_output_schema(base_url: str, given: Any) -> None:
    model = CHAT.make(base_url=base_url, features=DUAL, max_retries=0)
    bound: Any = model.bind_tools([look_up, given])
    assert "output_schema" not in str(bound.kwargs["tools"])


def test_two_tools_of_one_function_have_their_own_output_schemas(base_url: str) -> None:
    def check(word: str) -> tuple[int, dict[str, int]]:
        """Check."""
        return 1, {word: 2}

    whole = StructuredTool.from_function(check, name="whole")
    pair = StructuredTool.from_function(check, name="pair", response_format="content_and_artifact")
    bound: Any = CHAT.make(base_url=base_url, features=DUAL).bind_tools([whole, pair])
    found = [one["function"]["output_schema"] for one in bound.kwargs["tools"]]
    assert found == [{"type": "array"}, {"type": "integer"}]


class Person(TypedDict):
    name: str
    friend: "Person"
    foe: "Person"
    boss: "list[Person]"


def test_a_recursive_type_is_expanded_only_once(base_url: str) -> None:
    def check(word: str) -> Any:
        """Check."""

    check.__annotations__["return"] = Person
    bound: Any = CHAT.make(base_url=base_url, features=DUAL).bind_tools([check])
    (found,) = (one["function"]["output_schema"] for one in bound.kwargs["tools"])
    assert found["properties"]["friend"] == {"type": "object"}
    assert found["properties"]["boss"] == {"type": "array", "items": {"type": "object"}}
