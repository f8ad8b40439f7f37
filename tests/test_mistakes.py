"""Exact error messages for mistakes on the command line and in constructors of servers, executors,
middleware and policy generation. Each says what happened, what was expected, and what to do."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

import pytest
from click.testing import CliRunner
from langchain_core.messages import HumanMessage
from langgraph.graph import START, StateGraph

from langchain_sequrity import ChatSequrity, LangGraphExecutor, PolicyGenTool, sqrt
from langchain_sequrity.cli.commands import cli
from langchain_sequrity.conformance import Target
from langchain_sequrity.errors import InvalidRequest, SequrityError, SessionExpired, UsageError
from langchain_sequrity.local import LocalServer
from langchain_sequrity.middleware import PolicyMiddleware
from langchain_sequrity.transport import Timeouts
from tests.cli.running import ENVIRONMENT, TOOLS, write_files

# The command line

MORE_FILES: dict[str, Any] = {
    "numbers.json": [1],
    "nameless.json": ["pay", {"nme": "x"}],
    "text.json": "pay",
    "null.json": None,
    "open.json": [{"name": "pay", "parameters": {"properties": []}}],
    "header.json": {"codes": {}},
    "list.json": [],
    "many.json": [{**TOOLS[1], "name": f"pay_{'x' * 50}_{number}"} for number in range(1_000)],
    "script.json": [{"whne": {}}],
    "taken.sqrt": "",
}
NO_KEY = (
    "Error: https://api.sequrity.ai needs a key. Set the environment variable SEQURITY_API_KEY, or "
)
COMMANDS: list[tuple[str, int, str]] = [
    # Options of the server.
    ("serve --host 0.0.0.0", 1, "Error: --host 0.0.0.0 accepts other machines, but no key is required. Use --api-key, or remove --host."),
    ("serve --host :: --port 0", 1, "Error: --host :: accepts other machines, but no key is required. Use --api-key, or remove --host."),
    ("serve --api-key ''", 1, "Error: --api-key: expected printable ASCII characters without spaces. Check for a line break in the key."),
    ("serve --api-key 'sq 1'", 1, "Error: --api-key: expected printable ASCII characters without spaces. Check for a line break in the key."),
    ("serve --api-key good --api-key schlüssel", 1, "Error: --api-key: expected printable ASCII characters without spaces. Check for a line break in the key."),
    ("serve --port 70000", 2, "Error: Invalid value for '--port': 70000 is not in the range 0<=x<=65535."),
    ("serve --script no.json", 2, "Error: Invalid value for '--script': File 'no.json' does not exist."),
    ("serve --script script.json", 1, "Error: Rule 1 of `script.json`: Unknown field `whne` in a rule. Did you mean `when`?"),
    ("serve --script object.json", 1, "Error: `object.json` must contain a list of rules, or a mapping with only `rules`."),
    ("serve --fidelity exact", 2, "Error: Invalid value for '--fidelity': 'exact' is not one of 'full', 'documented'."),
    # Files.
    ("policy check no.sqrt", 2, "Error: no.sqrt: cannot be read: No such file or directory."),
    ("policy check latin.sqrt", 2, "Error: latin.sqrt:2: expected UTF-8, found the byte 0xe9 at offset 16. Save the file as UTF-8."),
    ("policy check - -", 2, "Error: `-` is given more than once, but standard input can be read only once. Use a file."),
    ("policy check good.sqrt --tools no.json", 2, "Error: no.json: cannot be read: No such file or directory."),
    ("policy check good.sqrt --tools broken.json", 2, "Error: broken.json:2:18: not valid JSON: Expecting property name enclosed in double quotes."),
    # Tools.
    ("policy check good.sqrt --tools object.json", 2, 'Error: object.json: expected a list of tools, got an object. Write `["send_mail", …]`, or a list of definitions.'),
    ("policy check good.sqrt --tools text.json", 2, 'Error: text.json: expected a list of tools, got a text. Write `["send_mail", …]`, or a list of definitions.'),
    ("policy check good.sqrt --tools null.json", 2, 'Error: null.json: expected a list of tools, got `null`. Write `["send_mail", …]`, or a list of definitions.'),
    ("policy check good.sqrt --tools numbers.json", 2, "Error: numbers.json: `tools` takes names of tools, definitions, LangChain tools, functions and pydantic classes; got 1."),
    ("policy check good.sqrt --tools nameless.json", 2, "Error: nameless.json: `tools` takes names of tools, definitions, LangChain tools, functions and pydantic classes; got {'nme': 'x'}."),
    ("policy check good.sqrt --tools open.json", 2, "Error: open.json: `properties` of the tool `pay` must be an object with its arguments; got []."),
    ("policy check good.sqrt --tools names.json --tools-from a:b", 2, "Error: --tools and --tools-from are both given. Give only one of them."),
    ("policy check good.sqrt --tools-from tools", 2, "Error: --tools-from: expected `module:attribute`, got `tools`. Write `app.agent:tools`."),
    ("policy check good.sqrt --tools-from no_module:tools", 2, "Error: --tools-from: `no_module:tools` cannot be imported: ModuleNotFoundError: No module named 'no_module'"),
    ("policy check good.sqrt --tools-from os:nothing", 2, "Error: --tools-from: `os:nothing` cannot be imported: AttributeError: module 'os' has no attribute 'nothing'"),
    ("policy check good.sqrt --tools-from os:sep", 2, 'Error: os:sep: expected a list of tools, got a text. Write `["send_mail", …]`, or a list of definitions.'),
    # Calls.
    ("policy simulate good.sqrt --calls empty.json", 2, 'Error: empty.json: expected a list of calls, got an empty list. Write `[{"tool": "send_mail", "arguments": {"to": "ana"}}, …]`.'),
    ("policy simulate good.sqrt --calls object.json", 2, 'Error: object.json: expected a list of calls, got an object. Write `[{"tool": "send_mail", "arguments": {"to": "ana"}}, …]`.'),
    ("policy simulate good.sqrt --calls null.json", 2, 'Error: null.json: expected a list of calls, got `null`. Write `[{"tool": "send_mail", "arguments": {"to": "ana"}}, …]`.'),
    ("policy simulate good.sqrt --calls unknown.json", 2, "Error: unknown.json: Call 1: unknown key `argumnets`. Did you mean `arguments`?"),
    ("policy simulate good.sqrt --calls misspelt.json --tools tools.json", 2, "Error: misspelt.json: Call 1 (`raed_mail`): there is no such tool. Did you mean `read_mail`?"),
    ("policy simulate good.sqrt --calls calls.json --header list.json", 2, "Error: list.json: expected an object with other fields of X-Policy, got a list."),
    ("policy simulate good.sqrt --calls calls.json --header header.json", 2, "Error: header.json: expected an object with other fields of X-Policy, got `codes`, which FILE replaces."),
    # Drafts.
    ("policy generate Careful", 2, "Error: No tools are given. Use --tools or --tools-from."),
    ("policy generate Careful --tools list.json", 2, "Error: No tools are given. Use --tools or --tools-from."),
    ("policy generate Careful --local --tools names.json", 2, "Error: `tools[0]` is not a tool or a schema. Expected a LangChain tool, a function, a pydantic class, a TypedDict, or a tool object with a name and a JSON Schema; got the text 'read_mail'."),
    ("policy generate Careful --tools tools.json", 2, f"{NO_KEY}use --local."),
    ("policy generate Careful --tools tools.json --out taken.sqrt", 2, "Error: taken.sqrt exists. Use another name for --out, or --force to replace it."),
    ("policy generate Careful --tools tools.json --out no/such/new.sqrt", 2, "Error: no/such/new.sqrt cannot be written: the folder no/such does not exist. Create it."),
    ("policy generate Careful --tools tools.json --model ' '", 2, "Error: --model: expected a name, got an empty text."),
    ("policy generate Careful --tools tools.json --provider openai", 2, "Error: --provider needs a model of that provider: --model is missing for `openai`."),
    ("policy generate Careful --tools tools.json --mode dual", 2, "Error: Invalid value for '--mode': 'dual' is not one of 'single-llm', 'dual-llm'."),
    ("policy generate '' --local --tools tools.json", 2, "Error: The description is empty. Say what the policy must allow and forbid."),
]  # fmt: skip


def parts(command: str) -> list[str]:
    """The arguments of a command. A quoted text is one argument."""
    return [
        piece
        for number, text in enumerate(command.split("'"))
        for piece in ([text] if number % 2 else text.split())
    ]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_files(tmp_path)
    for name, content in MORE_FILES.items():
        (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(("command", "status", "text"), COMMANDS, ids=[one for one, *_ in COMMANDS])
def test_messages_of_the_command_line_name_its_own_options(
    command: str, status: int, text: str
) -> None:
    result = CliRunner(env=ENVIRONMENT).invoke(cli, parts(command))
    assert result.exit_code == status
    assert result.stdout == ""
    assert result.stderr.strip().splitlines()[-1] == text


@pytest.mark.long
@pytest.mark.usefixtures("folder")
def test_a_draft_that_is_too_long_is_refused_with_its_size_and_advice() -> None:
    arguments = ["policy", "generate", "Careful", "--local", "--tools", "many.json"]
    result = CliRunner(env=ENVIRONMENT).invoke(cli, arguments)
    assert result.exit_code == 1
    assert re.fullmatch(
        r"Error: The service answered with status 400: A policy for these 1000 tools would have "
        r"\d+ characters; at most 65536 are allowed\. Send fewer tools at once\.",
        result.stderr.strip(),
    )


# Constructors


class State(TypedDict, total=False):
    a: str
    b: str


def one(state: State) -> State:
    return {"a": state["b"]}


def two(state: State) -> State:
    return {"b": state["a"]}


def steps() -> Any:
    graph = StateGraph(State).add_sequence([one, two])
    graph.add_edge(START, "one")
    return graph


def send(to: str) -> str:
    """Send it."""
    return to


MODEL = ChatSequrity("any/model", base_url="http://127.0.0.1:9")
RULE = 'tool "pay" { must deny always; }'
MADE: list[tuple[str, Callable[[], Any], str]] = [
    # Servers.
    ("host", lambda: LocalServer(host="0.0.0.0"), """`host='0.0.0.0'` is open to other machines, but no keys are required. Set `api_keys=[…]`, or leave `host` at "127.0.0.1"."""),  # noqa: S104 - refused
    ("one key", lambda: LocalServer(api_keys="sq-1"), "`api_keys` must be a list of keys; got a text. Write `[…]` around it."),
    ("a key with a space", lambda: LocalServer(api_keys=["sq 1"]), "A key in `api_keys` has characters other than printable ASCII without spaces."),
    ("an empty key", lambda: LocalServer(api_keys=[""]), "A key in `api_keys` has characters other than printable ASCII without spaces."),
    ("a timeout as text", lambda: Timeouts.of("30s"), "The timeout `total` must be a number of seconds above 0, or `None` for no limit; got '30s'."),  # type: ignore[arg-type]
    ("a second key with a space", lambda: Target("http://127.0.0.1:1", second_key="a b"), "`second_key` is not a key: one of its 3 characters is a space, a line break or not ASCII. Copy the key again, without the characters around it."),
    ("an empty second key", lambda: Target("http://127.0.0.1:1", second_key=""), "`second_key` is empty. Give the key, or leave `second_key` out."),
    ("a call with a list", lambda: sqrt.Call("pay", []), "`arguments` of a `Call` must be a dict; got a value of type `list`. Write `{name: Argument(value)}`."),  # type: ignore[arg-type]
    ("port as text", lambda: LocalServer(port="80"), "`port` must be a number from 0 to 65535, where 0 means any free port; got '80'."),  # type: ignore[arg-type]
    ("port too high", lambda: LocalServer(port=99_999), "`port` must be a number from 0 to 65535, where 0 means any free port; got 99999."),
    ("port too low", lambda: LocalServer(port=-1), "`port` must be a number from 0 to 65535, where 0 means any free port; got -1."),
    ("port true", lambda: LocalServer(port=True), "`port` must be a number from 0 to 65535, where 0 means any free port; got True."),
    ("fidelity", lambda: LocalServer(fidelity="exact"), """`fidelity` must be "full" or "documented"; got 'exact'."""),  # type: ignore[arg-type]
    ("programs", lambda: LocalServer(isolated_programs="no"), "`isolated_programs` must be `True`, `False` or `None`; got 'no'."),  # type: ignore[arg-type]
    ("model by name", lambda: LocalServer(model="gpt"), "`model` must be a LangChain chat model; got 'gpt'. Omit it for the default."),  # type: ignore[arg-type]
    ("script by number", lambda: LocalServer(script=5), "A script must be a list of rules; got `int`."),  # type: ignore[arg-type]
    ("script that is not there", lambda: LocalServer(script="no.yaml"), "The script `no.yaml` cannot be read: No such file or directory. Check the path."),
    ("key of a rule", lambda: LocalServer(script=[{"whne": {}}]), "Rule 1 of the script: Unknown field `whne` in a rule. Did you mean `when`?"),
    ("key of a condition", lambda: LocalServer(script=[{"when": {"usr": "x"}, "text": "y"}]), "Rule 1 of the script: Unknown field `usr` in `when`. Did you mean `user`?"),
    ("regex of a condition", lambda: LocalServer(script=[{"when": {"user": "("}, "text": "y"}]), "Rule 1 of the script: `when.user`: Input should be a regular expression, and `(` is not one: a parenthesis is not closed (at character 2)."),
    ("a server that does not run", lambda: LocalServer().base_url, "The server is not running. Use `with LocalServer() as server:`, or `start()` it."),
    # Policy generation.
    ("no tools", lambda: PolicyGenTool(MODEL), "No tools are given. Pass `tools=[…]`, or a model with bound tools."),
    ("empty tools", lambda: PolicyGenTool(MODEL, []), "No tools are given. Pass `tools=[…]`, or a model with bound tools."),
    ("a tool alone", lambda: PolicyGenTool(MODEL, {"name": "x"}), "`tools` must be a list of tools; got a single `dict`. Write `[…]` around it."),  # type: ignore[dict-item]
    ("a tool's name", lambda: PolicyGenTool(MODEL, ["send"]), "`tools[0]` is not a tool or a schema. Expected a LangChain tool, a function, a pydantic class, a TypedDict, or a tool object with a name and a JSON Schema; got the text 'send'."),  # type: ignore[list-item]
    ("a number", lambda: PolicyGenTool(MODEL, [send, 5]), "`tools[1]` is not a tool or a schema. Expected a LangChain tool, a function, a pydantic class, a TypedDict, or a tool object with a name and a JSON Schema; got a value of type `int`."),  # type: ignore[list-item]
    ("a slip", lambda: PolicyGenTool(MODEL, [send], retries=2), "`retries` is not an argument of `PolicyGenTool`. Did you mean `n_retries`?"),
    ("of the model", lambda: PolicyGenTool(MODEL, [send], base_url="x"), "`base_url` is not an argument of `PolicyGenTool`. `PolicyGenTool` takes arguments of a model only beside the name of a model. Give them to the model itself."),
    ("model", lambda: PolicyGenTool(5, [send]), "`model` must be a `ChatSequrity` or a `SequrityMessages`, with or without bound tools, or the name of a model; got int."),  # type: ignore[arg-type]
    ("mode", lambda: PolicyGenTool(MODEL, [send], mode="dual"), """`mode` must be "single-llm", "dual-llm" or `None`; got 'dual'."""),
    ("internal tool", lambda: PolicyGenTool(MODEL, [send], internal_tool_names=["parse"]), "`parse` is not a tool of the service. Use names of `parse_with_ai`, `verify_hypothesis`, `complete_turn`, `set_policy`."),
    ("no description", lambda: PolicyGenTool(MODEL, [send]).generate(" "), "The description is empty. Say what the policy must allow and forbid."),
    ("description", lambda: PolicyGenTool(MODEL, [send]).generate(5), "The description must be a text; got a value of type `int`."),  # type: ignore[arg-type]
    ("surrogate", lambda: PolicyGenTool(MODEL, [send]).generate("\ud800"), r"The request cannot be written as JSON: 'utf-8' codec can't encode character '\ud800' in position 72: surrogates not allowed. Description and tools must be plain data and valid Unicode."),
    # Middleware.
    ("denials", lambda: PolicyMiddleware(RULE, on_denied="skip"), """`on_denied` must be "raise", "message" or "interrupt" for `PolicyMiddleware`; got 'skip'."""),  # type: ignore[arg-type]
    ("labelling", lambda: PolicyMiddleware(RULE, labelling="all"), """`labelling` must be "conversation" or "none"; got 'all'."""),  # type: ignore[arg-type]
    ("uncertain", lambda: PolicyMiddleware(RULE, allow_uncertain="no"), "`allow_uncertain` must be `True` or `False`; got 'no'."),  # type: ignore[arg-type]
    ("arguments in the log", lambda: PolicyMiddleware(RULE, log_arguments="no"), "`log_arguments` must be `True` or `False`; got 'no'."),  # type: ignore[arg-type]
    ("tools of middleware", lambda: PolicyMiddleware(RULE, tools="pay"), """`tools` must be "agent", a list of tools or None; got 'pay'."""),
    ("a file's name", lambda: PolicyMiddleware("pay.sqrt"), "Expected SQRT text, got the name of a file. Pass it as `pathlib.Path(…)`."),
    ("a file that is not there", lambda: PolicyMiddleware(Path("pay.sqrt")), "The policy file `pay.sqrt` cannot be read: No such file or directory. Check the path."),
    # Executors.
    ("option", lambda: LangGraphExecutor(steps(), MODEL, nodse={}), "`nodse` is not an argument of `LangGraphExecutor`. Pass arguments of the model to the model; they are allowed here only if `model` is a name."),  # type: ignore[call-arg]
    ("denials of a graph", lambda: LangGraphExecutor(steps(), MODEL, on_denied="skip"), """`on_denied` must be "raise", "interrupt" or "state:<field>" for `LangGraphExecutor`; got 'skip'."""),
    ("node", lambda: LangGraphExecutor(steps(), MODEL, nodes={"onee": {}}), "`nodes` has options for 'onee', which is not a node. The nodes are 'one', 'two'."),  # type: ignore[dict-item]
    ("options of a node", lambda: LangGraphExecutor(steps(), MODEL, nodes={"one": 5}), "The options of node 'one' must be a `NodeOptions`; got 5. Write {'one': NodeOptions(reads=[…])}."),  # type: ignore[dict-item]
    ("no model", lambda: LangGraphExecutor(steps(), None), "`model` must be a `ChatSequrity`, a `SequrityMessages` or the name of a model; got NoneType."),  # type: ignore[arg-type]
]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "text"), [row[1:] for row in MADE], ids=[name for name, *_ in MADE]
)
def test_a_mistake_in_a_constructor_has_the_exact_message(
    make: Callable[[], Any], text: str
) -> None:
    with pytest.raises(SequrityError) as caught:
        make()
    assert str(caught.value) == text


def test_the_error_of_an_expired_session_has_the_reason_and_one_advice() -> None:
    with LocalServer() as server:
        model = ChatSequrity("any/model", base_url=server.base_url)
        with pytest.raises(SessionExpired) as caught:
            model.invoke("Hello", session_id="0b6f1c2e-1a2b-11f1-9c3d-0242ac120002")

    assert str(caught.value) == (
        "The service no longer knows the session (The session is unknown or has expired, or the "
        'request names two sessions). Start a new session with `session_id="new"`, or construct '
        'the model with `on_session_expired="restart"`.'
    )


def test_a_refused_request_has_the_services_advice_only() -> None:
    with LocalServer() as server:
        model = ChatSequrity("any/model", base_url=server.base_url)
        with pytest.raises(InvalidRequest) as caught:
            model.invoke([])

    assert str(caught.value) == (
        "The service answered with status 400: `messages` is empty. Send at least one message."
    )


def test_the_error_of_an_image_without_content_names_what_is_missing() -> None:
    with LocalServer() as server:
        model = ChatSequrity("any/model", base_url=server.base_url)
        with pytest.raises(UsageError, match="type `image` with no other key does not fit"):
            model.invoke([HumanMessage([{"type": "image"}])])
