"""Type checkers, editors and `inspect.signature` see the arguments of the constructors."""

import inspect
import json
import subprocess
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from langchain_sequrity import ChatSequrity, LangGraphExecutor, SequrityMessages
from langchain_sequrity.chat_models.arguments import (
    ChatSequrityArguments,
    NamedModelArguments,
    SequrityMessagesArguments,
)

PREAMBLE = '''\
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

import httpx
from langchain_core.callbacks import StdOutCallbackHandler
from langchain_core.caches import InMemoryCache
from langchain_core.output_parsers import StrOutputParser
from langchain_core.rate_limiters import InMemoryRateLimiter
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import StateGraph
from langgraph.store.memory import InMemoryStore
from pydantic import BaseModel, SecretStr

from langchain_sequrity import (
    ChatSequrity, ConfigHeader, FeaturesHeader, LangGraphExecutor, NodeOptions, PolicyHeader,
    SequrityMessages, sqrt,
)

class State(TypedDict):
    text: str

class City(BaseModel):
    name: str

def key() -> str:
    return "k"

async def async_key() -> str:
    return "k"

def tool(city: str) -> str:
    """Get the weather."""
    return city

graph = StateGraph(State)
base = "http://127.0.0.1:9"
model = ChatSequrity("m")
settings: dict[str, Any] = {"agent_arch": "dual-llm"}
mapping: Mapping[str, str] = {"X-Team": "t"}
'''

RIGHT = """
ChatSequrity("m")
ChatSequrity(model="m")
ChatSequrity("planner,worker", api_key="k", llm_api_key=SecretStr("k"))
ChatSequrity("m", api_key=key, llm_api_key=async_key)
ChatSequrity("m", api_key=None, base_url=base, provider="openrouter", endpoint_type="agent")
ChatSequrity("m", policy="tool \\"a\\" { must deny always; }")
ChatSequrity("m", policy=Path("policy.sqrt"), features={"agent_arch": "dual-llm"})
ChatSequrity("m", policy=PolicyHeader.from_sqrt(""), features=FeaturesHeader.dual_llm())
ChatSequrity("m", policy=[sqrt.named("house", ""), Path("p.sqrt"), "", PolicyHeader()])
ChatSequrity("m", policy=sqrt.combine("", ""))
ChatSequrity("m", policy={"codes": "x"}, features=settings, session_config={"fsm": {}})
ChatSequrity("m", session_config=ConfigHeader(), strict_policy=True)
ChatSequrity("m", on_denied="message", on_session_expired="restart")
ChatSequrity("m", on_denied="interrupt")
ChatSequrity("m", temperature=0.5, top_p=1, max_tokens=9, stop="x", seed=1)
ChatSequrity("m", stop=["x", "y"], reasoning_effort="high", verbosity="low")
ChatSequrity("m", stop_sequences=["x"], max_completion_tokens=9, organization="o")
ChatSequrity("m", timeout=30, max_retries=0, stream_chunk_timeout=None)
ChatSequrity("m", timeout=httpx.Timeout(5), http_client=httpx.Client())
ChatSequrity("m", http_async_client=httpx.AsyncClient(), proxy="http://127.0.0.1:8")
ChatSequrity("m", default_headers={"X-Team": "t", "X-Key": SecretStr("k")}, default_query={"v": 1})
ChatSequrity("m", default_headers=mapping, model_kwargs={"user": "u"}, extra_body={"a": 1})
ChatSequrity("m", use_responses_api=True, reasoning={"effort": "low"}, store=True, include=["x"])
ChatSequrity("m", cache=InMemoryCache(), rate_limiter=InMemoryRateLimiter(), tags=["a"], name="n")
ChatSequrity("m", callbacks=[StdOutCallbackHandler()], metadata={"a": 1}, disable_streaming="tool_calling")
ChatSequrity("m", profile={"max_input_tokens": 9}, logit_bias={"1": 2}, n=2, service_tier="flex")
SequrityMessages("m", max_tokens=9, thinking={"type": "adaptive"}, top_k=3)
SequrityMessages(model="m", betas=["b"], mcp_servers=[{"name": "n"}], container="c")
SequrityMessages("m", context_management={"edits": []}, container={"id": "c"}, provider="anthropic")
SequrityMessages("m", policy=Path("policy.sqrt"), api_key=key, output_config={"format": {}})
LangGraphExecutor(graph, model, history="new", on_denied="state:text", strict_policy=True)
LangGraphExecutor(graph, "m", api_key="k", policy=Path("p.sqrt"), cache=None, name="n")
LangGraphExecutor(graph, SequrityMessages("m"), nodes={"a": NodeOptions()}, checkpointer=InMemorySaver(), store=InMemoryStore())
model.bind_tools([tool], tool_choice="any").with_fallbacks([SequrityMessages("m")]).invoke("x").text
(model | StrOutputParser()).with_fallbacks([model | StrOutputParser()]).invoke("x").upper()
model.with_structured_output(City, method="json_schema").with_retry(stop_after_attempt=2).invoke("x")
""".strip().splitlines()

WRONG = """
ChatSequrity()
ChatSequrity("m", base_ur="x")
ChatSequrity("m", base_url=5)
ChatSequrity(5)
ChatSequrity("m", "key")
ChatSequrity("m", polciy="x")
ChatSequrity("m", policy=5)
ChatSequrity("m", policy=[5])
ChatSequrity("m", features="dual-llm")
ChatSequrity("m", session_config=True)
ChatSequrity("m", api_key=5)
ChatSequrity("m", api_key=lambda: 5)
ChatSequrity("m", openai_api_key="k")
ChatSequrity("m", provider="antropic")
ChatSequrity("m", provider="anthropic")
SequrityMessages("m", provider="openai")
ChatSequrity("m", endpoint_type="chats")
ChatSequrity("m", on_denied="ignore")
ChatSequrity("m", on_session_expired="new")
ChatSequrity("m", strict_policy="yes")
ChatSequrity("m", temperature="hot")
ChatSequrity("m", max_tokens=9.5)
ChatSequrity("m", stop=5)
ChatSequrity("m", reasoning_effort="much")
ChatSequrity("m", verbosity="loud")
ChatSequrity("m", timeout="30s")
ChatSequrity("m", max_retries=None)
ChatSequrity("m", default_headers={"X-Team": 5})
ChatSequrity("m", http_client=httpx.AsyncClient())
ChatSequrity("m", thinking={"type": "adaptive"})
ChatSequrity("m", truncation="middle")
ChatSequrity("m", profile={"max_input_tokens": "many"})
SequrityMessages()
SequrityMessages("m", seed=1)
SequrityMessages("m", use_responses_api=True)
SequrityMessages("m", betas="b")
SequrityMessages("m", mcp_servers={"name": "n"})
SequrityMessages("m", top_k="three")
LangGraphExecutor(graph)
LangGraphExecutor(graph, 5)
LangGraphExecutor(graph, "m", base_ur="x")
LangGraphExecutor(graph, "m", histroy="new")
LangGraphExecutor(graph, "m", history="old")
LangGraphExecutor(graph, "m", on_denied=5)
LangGraphExecutor(graph, "m", nodes={"a": 5})
LangGraphExecutor(graph, "m", store=True)
LangGraphExecutor(graph, "m", api_key=5)
LangGraphExecutor("graph", model)
model.bind_tools(5)
model.with_structured_output(City, method="xml")
model.with_fallbacks("other")
model.with_retry(stop_after=3)
""".strip().splitlines()

ROOT = Path(__file__).parents[2]
Check = Callable[[Sequence[Path], Path], Mapping[str, set[int]]]


def by_mypy(files: Sequence[Path], cache: Path) -> Mapping[str, set[int]]:
    """The lines of each file in which mypy finds an error."""
    command = [sys.executable, "-m", "mypy", "--strict", "--output=json", f"--cache-dir={cache}"]
    run = subprocess.run([*command, *map(str, files)], capture_output=True, text=True, check=False)  # noqa: S603 - our own files
    assert run.returncode in (0, 1), run.stderr
    found: dict[str, set[int]] = {one.name: set() for one in files}
    for line in run.stdout.splitlines():
        said = json.loads(line)
        if said["severity"] == "error":
            found[Path(said["file"]).name].add(said["line"])
    return found


def by_pyright(files: Sequence[Path], _cache: Path) -> Mapping[str, set[int]]:
    """The lines of each file in which pyright finds an error."""
    if find_spec("pyright") is None:
        pytest.skip("`pyright` is not installed")
    command = [sys.executable, "-m", "pyright", "--outputjson", f"--pythonpath={sys.executable}"]
    run = subprocess.run([*command, *map(str, files)], capture_output=True, text=True, check=False)  # noqa: S603 - our own files
    if run.returncode not in (0, 1):
        pytest.skip(f"pyright cannot run here, it loads itself from npm: {run.stderr[-200:]}")
    found: dict[str, set[int]] = {one.name: set() for one in files}
    for said in json.loads(run.stdout)["generalDiagnostics"]:
        if said["severity"] == "error":
            found[Path(said["file"]).name].add(said["range"]["start"]["line"] + 1)
    return found


@pytest.mark.long
@pytest.mark.parametrize("check", [by_mypy, by_pyright], ids=["mypy", "pyright"])
def test_type_checkers_find_wrong_uses_and_accept_right_ones(check: Check, tmp_path: Path) -> None:
    files = []
    for name, uses in (("right.py", RIGHT), ("wrong.py", WRONG)):
        file = tmp_path / name
        file.write_text(PREAMBLE + "\n".join(uses) + "\n")
        files.append(file)
    found = check(files, ROOT / ".mypy_cache" / "uses")
    first = PREAMBLE.count("\n") + 1
    assert [RIGHT[line - first] for line in sorted(found["right.py"])] == []
    lines = enumerate(WRONG, first)
    assert [use for line, use in lines if line not in found["wrong.py"]] == []
    assert min(found["wrong.py"]) >= first
    assert min(len(RIGHT), len(WRONG)) >= 30


# The arguments and the fields

USED = pytest.mark.usefixtures("_used")
MODELS: list[tuple[Any, Any]] = [
    (ChatSequrity, ChatSequrityArguments),
    (SequrityMessages, SequrityMessagesArguments),
]


@pytest.fixture(params=["before its first use", "after it"])
def _used(request: pytest.FixtureRequest) -> None:
    """Run the test before and after first use: pydantic builds a model class at first use."""
    if request.param == "after it":
        for model, _ in MODELS:
            model("m", base_url="http://127.0.0.1:9")


@USED
@pytest.mark.parametrize(("model", "arguments"), MODELS)
def test_fields_and_arguments_are_the_same(model: Any, arguments: Any) -> None:
    names = set(inspect.signature(model).parameters)
    assert names == {"model", *arguments.__annotations__}
    fields = {field.alias for field in model.model_fields.values() if field.alias}
    assert names == {*model.model_fields, *fields} - {"model_name"}


@USED
@pytest.mark.parametrize(("model", "arguments"), MODELS)
def test_an_argument_has_the_default_of_its_field(model: Any, arguments: Any) -> None:
    for name, parameter in inspect.signature(model).parameters.items():
        field = model.model_fields.get(name) or model.model_fields["stop"]
        if name == "model":
            assert parameter.default is inspect.Parameter.empty
        elif field.default_factory is None:
            assert parameter.default == field.default
        else:
            assert parameter.default is ...
    assert list(arguments.__annotations__) == list(inspect.signature(model).parameters)[1:]


@USED
@pytest.mark.parametrize(("model", "arguments"), MODELS)
def test_the_type_of_an_argument_contains_the_type_of_its_field(model: Any, arguments: Any) -> None:
    for name, kind in typing.get_type_hints(arguments).items():
        field = model.model_fields.get(name) or model.model_fields["stop"]
        if name == "provider":
            continue  # each model accepts only the providers of its format
        given = _kinds(kind)
        for one in _kinds(field.annotation) - {Any}:
            assert any(_is_within(one, other) for other in given), (name, one, given)


def test_the_executor_accepts_the_arguments_of_a_model_given_by_name() -> None:
    names = set(inspect.signature(LangGraphExecutor).parameters)
    assert names > set(NamedModelArguments.__annotations__)
    assert {"graph", "model", "nodes", "history", "checkpointer", "strict_policy"} <= names


def test_the_signature_of_a_subclass_contains_the_arguments() -> None:
    class Mine(ChatSequrity):
        mine: int = 1

    for _ in range(2):
        shown = inspect.signature(Mine).parameters
        assert shown == {**inspect.signature(ChatSequrity).parameters, "mine": shown["mine"]}
        assert Mine(model="m", api_key=SecretStr("k"), mine=2).mine == 2


def _kinds(kind: Any) -> set[Any]:
    """The members of a union; each literal is a member."""
    origin = typing.get_origin(kind)
    if origin is typing.Annotated:
        return _kinds(typing.get_args(kind)[0])
    if origin in (typing.Union, types.UnionType):
        return {one for member in typing.get_args(kind) for one in _kinds(member)}
    if origin is typing.Literal:
        return {("literal", one) for one in typing.get_args(kind)}
    return {origin or kind}


def _is_within(one: Any, other: Any) -> bool:
    if one == other or other is Any:
        return True
    same = {(list, Sequence), (dict, Mapping), (bool, int), (int, float), (SecretStr, str)}
    origins = {(one, getattr(other, "__origin__", other))}
    return bool(origins & {(a, typing.get_origin(b) or b) for a, b in same})
