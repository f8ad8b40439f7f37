"""The limits of a server are options: documented, checked, and named by the errors they cause."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from click.testing import CliRunner

from langchain_sequrity import ChatSequrity
from langchain_sequrity.cli.commands import cli
from langchain_sequrity.cli.services import limits_by_name
from langchain_sequrity.errors import UsageError
from langchain_sequrity.headers import PolicyHeader
from langchain_sequrity.local import LocalServer, MemorySessions, ServerLimits
from langchain_sequrity.local.interpreter import Limits
from langchain_sequrity.local.limits import DEFAULTS
from tests.local.api import Api, call_ids, result, session_of, tool
from tests.local.conftest import Serve
from tests.local.stores import acquire

GRAPH = "/control/lang-graph/v1/chat/completions"
POLICIES = "/control/policy-gen/openrouter/v1/generate"
HEADERS = "/control/v1/validate-headers"
PAGE = Path("docs/local-server.md")


def values(limits: Any) -> dict[str, Any]:
    return {field.name: getattr(limits, field.name) for field in dataclasses.fields(limits)}


def test_the_page_lists_all_limits_with_their_defaults() -> None:
    rows = re.findall(r"^\| `([a-z_.]+)` \| ([\d,.]+) \|", PAGE.read_text("utf-8"), re.MULTILINE)
    listed = {name: float(number.replace(",", "")) for name, number in rows}
    expected = values(DEFAULTS)
    del expected["workers"]  # its default depends on the machine
    expected |= {
        f"program.{name}": value for name, value in values(expected.pop("program")).items()
    }
    assert listed == expected


# Their values


@pytest.mark.parametrize(
    ("limits", "problem"),
    [
        ({"sesion_bytes": 1}, r"no limit `sesion_bytes`\. Did you mean `session_bytes`\?"),
        ({"program": {"txt": 1}}, r"no limit `program\.txt`\. Did you mean `program\.text`\?"),
        ({"session_bytes": 0}, "`session_bytes` must be a positive whole number; got 0"),
        ({"session_bytes": 1.5}, "`session_bytes` must be a positive whole number; got 1.5"),
        ({"session_bytes": True}, "`session_bytes` must be a positive whole number; got True"),
        ({"session_bytes": "1"}, "`session_bytes` must be a positive whole number; got '1'"),
        ({"body_seconds": -1.0}, "`body_seconds` must be a positive number of seconds"),
        ({"body_seconds": float("nan")}, "`body_seconds` must be a positive number of seconds"),
        ({"program": {"calls": None}}, "`program.calls` must be a positive whole number; got None"),
        ({"program": 7}, "`program` must be"),
        (7, "`limits` must be"),
        ({"session_bytes": 2**26}, r"`session_bytes` is above `sessions_bytes` \(41,943,040\)"),
    ],
)
def test_a_value_that_is_no_limit_is_refused(limits: Any, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        LocalServer(limits=limits)


def test_limits_come_from_a_mapping_or_from_the_command_line() -> None:
    options = ["session_bytes=30_000_000", "body_seconds=0.5", "program.text=3000000"]
    expected = ServerLimits(
        session_bytes=30_000_000, body_seconds=0.5, program=Limits(text=3_000_000)
    )
    assert ServerLimits.from_mapping(limits_by_name(options)) == expected
    assert ServerLimits.from_mapping(expected) is expected
    for option in ("session_bytes", "session_bytes=many", "=", "program.text="):
        with pytest.raises(UsageError, match="expected NAME=NUMBER"):
            limits_by_name([option])


def test_the_command_refuses_what_is_no_limit() -> None:
    outcome = CliRunner().invoke(cli, ["serve", "--port", "0", "--limit", "sesion_bytes=1"])
    assert outcome.exit_code == 1
    assert "Did you mean `session_bytes`?" in outcome.output


@pytest.mark.parametrize("name", ["sessions", "sessions_bytes", "session_bytes", "session_seconds"])
def test_a_limit_of_the_default_store_beside_another_store_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=f"`{name}`.*MemorySessions"):
        LocalServer(store=MemorySessions(), limits={name: 77})


# Their errors


def refused(api: Api, **options: Any) -> str:
    return api.post(**options).text


def chatted(words: str = "Hi", **options: Any) -> Callable[[Api], str]:
    return lambda api: api.chat(words, **options).text


def ran(program: str, content: str = "1", **options: Any) -> Callable[[Api], str]:
    def run(api: Api) -> str:
        fields = {"user_provided_program": program, "tools": [tool()], **options}
        reply = api.chat("Run.", path=GRAPH, **fields)
        while "tool_calls" in reply.text:
            message = result(call_ids(reply)[0], content)
            reply = api.chat(message, path=GRAPH, session=session_of(reply))
        return reply.text

    return run


def without_room(api: Api) -> str:
    sessions: Any = api.server.sessions
    busy = session_of(api.chat("x" * 60_000))
    acquire(sessions, busy)
    return api.chat("x" * 60_000).text


def repeated(api: Api) -> str:
    headers = {"Idempotency-Key": str(uuid4())}
    for _ in range(2):
        reply = api.chat("x" * 500, headers=headers)
    return reply.text


CALL = "look_up(word='a')"
CAUSES: dict[str, tuple[Any, Callable[[Api], str]]] = {
    "header_bytes": (500, chatted(headers={"X-Policy": "y" * 500})),
    "head_bytes": (900, chatted(headers={"X-Note": "y" * 900})),
    "header_lines": (8, chatted(headers={f"X-{number}": "y" for number in range(8)})),
    "body_bytes": (500, chatted("x" * 500)),
    "policy_body_bytes": (500, lambda api: refused(api, path=POLICIES, json={"x": "x" * 500})),
    "checked_body_bytes": (500, lambda api: refused(api, path=HEADERS, json={"x": "x" * 500})),
    "requests_bytes": (20_000, chatted("x" * 20_000)),
    "answer_bytes": (500, chatted("x" * 501)),
    "session_bytes": (5_000, chatted("x" * 5_000)),
    "sessions_bytes": (100_000, without_room),
    "reply_bytes": (500, repeated),
    "program.source": (20, ran("x = 1\n" * 20)),
    "program.nodes": (20, ran("x = 1\n" * 20)),
    "program.nesting": (5, ran("[[[[[[[1]]]]]]]")),
    "program.steps": (2_000, ran("while True: pass")),
    "program.depth": (10, ran("def f(): return f()\nf()")),
    "program.bits": (500, ran("2 ** 600")),
    "program.text": (500, ran("'x' * 501")),
    "program.items": (500, ran("[1] * 501")),
    "program.memory": (5_000, ran("[[n] for n in range(500)]")),
    "program.pattern": (50, ran("import re\nre.match('x' * 51, 'x')")),
    "program.seconds": (0.01, ran("while True: pass")),
    "program.total_seconds": (0.01, ran("while True: pass")),
    "program.calls": (3, ran(f"while True: {CALL}")),
}


@pytest.mark.parametrize("name", CAUSES)
def test_an_error_of_a_limit_names_the_option_that_raises_it(name: str, serve: Serve) -> None:
    limit, cause = CAUSES[name]
    outer, _, inner = name.partition(".")
    limits = {outer: {inner: limit} if inner else limit}
    text = cause(serve(isolated_programs=False, limits=limits)).replace("\\", "")
    assert f"`serve --limit {name}=" in text
    option = f'{{"{outer}": {{"{inner}": ' if inner else f'{{"{outer}": '
    assert f"LocalServer(limits={option}" in text


def test_a_higher_limit_lets_the_same_request_pass(serve: Serve) -> None:
    limits = {"program": {"text": 3_000_000}, "session_bytes": 2**26, "sessions_bytes": 2**27}
    api = serve(isolated_programs=False, limits=limits)
    assert "2500000" in ran(f"len({CALL})", "x" * 2_500_000)(api)


RULES = "\n".join(
    f'tool "tool_{number}" {{ must deny when recipient.value in {{w"*@evil{number}.example", '
    f'w"*@worse{number}.example"}}; }}'
    for number in range(400)
)


def test_a_policy_of_400_rules_fits_into_the_headers_of_the_server(serve: Serve) -> None:
    header = PolicyHeader.from_sqrt(RULES).to_header()
    assert 40_000 < len(header) < 64_000
    assert serve().chat("Hello", headers={"X-Policy": header}).status_code == 200


@pytest.mark.long
def test_a_model_takes_a_policy_of_400_rules_without_a_setting(serve: Serve) -> None:
    model = ChatSequrity("any/model", base_url=serve().server.base_url, policy=RULES)
    assert model.invoke("Hello").text


def test_the_client_sends_long_headers_only_where_no_proxy_is(serve: Serve) -> None:
    note = {"X-Note": "y" * 60_000}
    local = ChatSequrity("m", base_url=serve().server.base_url, default_headers=note)
    assert local.invoke("Hi").text
    elsewhere: dict[str, Any] = {
        "base_url": "https://service.example",
        "api_key": "k",
        "default_headers": note,
    }
    with pytest.raises(UsageError, match=r"`max_header_bytes` \(8192\)") as refusal:
        ChatSequrity("m", **elsewhere).invoke("Hi")
    assert "limit of the hosted service is not known" in str(refusal.value)
    ChatSequrity("m", **elsewhere, max_header_bytes=70_000)


# What exceeded a limit of programs


@pytest.mark.parametrize(
    ("program", "subject"),
    [
        (f"text = {CALL}\nother = 1", "the result of `look_up`"),
        ("x = 1\ntext = 'x' * 2000\n", "the value of the variable `text`"),
        ("x = 'x' * 600\nx += x\n", "the value of the variable `x`"),
        ("look_up(word=b'x' * 900)", "the argument `word` of `look_up`"),  # 1,200 as Base64
        ("look_up(**{'word': b'x' * 900})", "an argument of `look_up`"),
        ("x = 'x' * 600\nx[:1] + x + x", ""),
        ("len(given)", "the variable `given` of the request"),
    ],
)
@pytest.mark.parametrize("isolated", [pytest.param(True, marks=pytest.mark.long), False])
def test_an_error_of_a_program_says_what_exceeded_the_limit(
    program: str, subject: str, *, isolated: bool, serve: Serve
) -> None:
    limits = {"program": {"text": 1_000, "items": 1_000}}
    api = serve(isolated_programs=isolated, limits=limits)
    given = {"given": {"value": "x" * (2_000 if "given" in program else 1)}}
    limited = ran(program, "x" * 2_000, context_vars=given)(api)
    named = f": {subject}" if subject else ""
    assert f"reached the limit `text` (1,000){named}. Whoever" in limited
