"""Probes of programs: what the interpreter takes, what values and labels come out of it."""

import json
from typing import Any

from langchain_sequrity.conformance.client import Answer, Client, NoAnswer, Run, Seen, probe
from langchain_sequrity.labels import Labels

_GRAPH = "protocol.md, LangGraph endpoint"
_ENDS = "behaviour.md, P8 How a turn ends"
_SERVER = "local-server.md, Choices of dual-LLM"
_SCHEMA = """{"type": "object", "properties": {"word": {"type": "string"}, %s
    "required": ["word"]}"""


def _told(seen: Seen) -> Answer:
    if seen.outcome == "failure":
        return Answer("failure", f"{seen.envelope.error_code}: {seen.said}")
    return Answer(seen.outcome, seen.said)


def _value(seen: Seen) -> Answer:
    """The value that a program ended with."""
    return Answer(_json(seen.value)) if seen.outcome == "success" else _told(seen)


def _labels(seen: Seen) -> Answer:
    """The probe's names among the labels of that value."""
    labels = seen.envelope.labels
    if seen.outcome != "success" or labels is None:
        return _told(seen)
    return Answer(_names(labels), _json(labels.to_wire()))


def _ran(client: Client, program: str, **options: Any) -> Answer:
    """What becomes of a program that calls no tool."""
    return _told(Run(client, program, **options).ask(any_status=True))


def _fed(client: Client, program: str, content: str, **options: Any) -> Seen:
    """The reply to the result of a program's first call."""
    run = Run(client, program, **options)
    run.begin()
    return run.answer(content)


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


@probe(
    "program-runs",
    "Does the endpoint `lang-graph` run a supplied program, without a planner?",
    "It does, and ends with an envelope whose `final_return_value` has the value.",
    _GRAPH, "protocol.md, Dual-LLM content",
    expected=("2",),
)  # fmt: skip
def _runs(client: Client) -> Answer:
    seen = Run(client, "final_return_value = 1 + 1").ask(any_status=True)
    return _value(seen)


@probe(
    "program-names-models",
    "Which models does a dual-LLM reply name when one was asked for?",
    "Both, separated by a comma. The client takes it for a mark of a dual-LLM session.",
    "protocol.md, Configuration", "behaviour.md, P2 Which replies are dual-LLM",
    expected=("two names",), copes=("one name",),
)  # fmt: skip
def _names_models(client: Client) -> str:
    seen = Run(client, "final_return_value = 1").begin()
    return "two names" if "," in str(seen.body.get("model")) else "one name"


@probe(
    "program-does-not-parse",
    "How is a program reported that is not Python?",
    "As a failed turn of status 200.",
    _GRAPH, "protocol.md, Errors",
    expected=("failure",), copes=("status 400", "status 422"),
)  # fmt: skip
def _does_not_parse(client: Client) -> Answer:
    return _ran(client, "final_return_value = = 1")


@probe(
    "program-raises",
    "How is a program reported that raises?",
    "As a failed turn of status 200; the client reads `status` and nothing else.",
    _GRAPH, "protocol.md, Errors",
    expected=("failure",),
)  # fmt: skip
def _raises(client: Client) -> Answer:
    return _ran(client, "final_return_value = 1 / 0")


@probe(
    "program-failed-finish",
    "With which finish reason does a failed turn end?",
    "`stop` or `error`; the client takes both.",
    _ENDS, "protocol.md, Open questions",
    expected=("stop", "error"),
)  # fmt: skip
def _failed_finish(client: Client) -> Answer:
    seen = Run(client, "final_return_value = 1 / 0").begin()
    if seen.envelope.status != "failure":
        raise NoAnswer(seen.unexpected("a failed turn"))
    return Answer(str(seen.choice.get("finish_reason")), f"Code `{seen.envelope.error_code}`.")


@probe(
    "program-exits",
    "Does `exit()` end a program early with its value?",
    "It does.",
    _ENDS,
    expected=('"early"',),
)  # fmt: skip
def _exits(client: Client) -> Answer:
    program = "final_return_value = 'early'\nexit()\nfinal_return_value = 'late'"
    seen = Run(client, program).ask(any_status=True)
    return _value(seen)


@probe(
    "program-exits-with-status",
    "What does `exit(1)` do?",
    "The turn fails.",
    _ENDS,
    expected=("failure",),
)  # fmt: skip
def _exits_with_status(client: Client) -> Answer:
    return _ran(client, "final_return_value = 'early'\nexit(1)")


@probe(
    "program-without-value",
    "What if a program sets no `final_return_value`?",
    "The turn succeeds with the value `null`.",
    _ENDS, _GRAPH,
    expected=("null",), copes=("failure",),
)  # fmt: skip
def _without_value(client: Client) -> Answer:
    seen = Run(client, "x = 1").ask(any_status=True)
    return _value(seen)


@probe(
    "program-blocked-builtins",
    "Is `print` blocked?",
    "It is. Graphs never use it.",
    _SERVER,
    expected=("failure",), of="local server",
)  # fmt: skip
def _blocked(client: Client) -> Answer:
    return _ran(client, "print('probe')\nfinal_return_value = 1")


@probe(
    "program-imports",
    "May a program import `json`, `re` and `math`, and not `os`?",
    "So it is.",
    _GRAPH,
    expected=("json, math, re",), requests=4,
)  # fmt: skip
def _imports(client: Client) -> Answer:
    names = ("json", "math", "os", "re")
    taken = [
        name for name in names
        if _ran(client, f"import {name}\nfinal_return_value = 1").found == "success"
    ]  # fmt: skip
    return Answer(", ".join(taken) or "none")


@probe(
    "program-language",
    "Does the interpreter take what programs of graphs are written in?",
    "It takes functions, loops, `try`, comprehensions, f-strings, slices and dict methods.",
    _GRAPH, "behaviour.md, G1 A graph means what it means to LangGraph",
    expected=("as in Python",),
)  # fmt: skip
def _language(client: Client) -> Answer:
    program = """
def total(items, start=0):
    for item in items:
        if item is None:
            continue
        start += item
    return start
found = {"a": [1, 2, None], "b": []}
try:
    found["c"]
except KeyError:
    found["c"] = [n * n for n in range(4) if n % 2]
done = 0
while done < 3:
    done += 1
final_return_value = [total(found[key]) for key in sorted(found)] + [f"{done:>3}", "text"[1:3]]
"""
    seen = Run(client, program).ask(any_status=True)
    if seen.outcome != "success":
        return _told(seen)
    is_same = seen.value == [3, 0, 10, "  3", "ex"]
    return Answer("as in Python" if is_same else "otherwise", _json(seen.value))


@probe(
    "program-steps",
    "Does a program of a few ten thousand steps end?",
    "It does.",
    "behaviour.md, G1 A graph means what it means to LangGraph",
    expected=("20000",), copes=("failure",),
)  # fmt: skip
def _steps(client: Client) -> Answer:
    program = "n = 0\nfor i in range(20000):\n    n += 1\nfinal_return_value = n"
    seen = Run(client, program).ask(any_status=True)
    return _value(seen)


@probe(
    "program-long",
    "Is a program of 90 kB taken?",
    "It is.",
    _GRAPH,
    expected=("success",),
)  # fmt: skip
def _long(client: Client) -> Answer:
    return _ran(client, f"x = '{'probe' * 18_000}'\nfinal_return_value = 1")


@probe(
    "program-positional-arguments",
    "May a program call a tool with positional arguments?",
    "It may not. Programs of graphs name every argument.",
    _SERVER,
    expected=("failure",), copes=("asks for a tool",), of="local server",
)  # fmt: skip
def _positional(client: Client) -> Answer:
    return _ran(client, "final_return_value = probe_read(1)")


@probe(
    "program-one-call-at-a-time",
    "How many calls does a reply ask for if two of them are independent?",
    "One.",
    "behaviour.md, P6 One tool call at a time",
    expected=("1",), copes=("2",),
)  # fmt: skip
def _one_call(client: Client) -> Answer:
    program = "a = probe_read(n=1)\nb = probe_read(n=2)\nfinal_return_value = [a, b]"
    return Answer(str(len(Run(client, program).begin().calls)))


@probe(
    "program-argument-spelling",
    "How are the arguments of a call written?",
    "As Python's `json.dumps` does, with a blank after colon and comma.",
    "protocol.md, Sessions", _SERVER,
    expected=("as json.dumps writes",), of="local server",
)  # fmt: skip
def _spelling(client: Client) -> Answer:
    arguments = Run(client, "probe_send(text='a\u00e9')").begin().call["function"].get("arguments")
    is_same = arguments == json.dumps({"text": "a\u00e9"})
    return Answer("as json.dumps writes" if is_same else "otherwise", str(arguments))


@probe(
    "program-call-limit",
    "What happens at `max_tool_calls_per_step`?",
    "The turn fails.",
    "protocol.md, Sessions", "protocol.md, X-Config",
    expected=("failure",), requests=2,
)  # fmt: skip
def _call_limit(client: Client) -> Answer:
    program = "a = probe_read(n=1)\nb = probe_read(n=2)\nfinal_return_value = 1"
    run = Run(client, program, fsm={"max_tool_calls_per_step": 1})
    run.begin()
    return _told(run.answer(any_status=True))


@probe(
    "program-shown",
    "Does `include_program` bring the program back as it was sent?",
    "It does.",
    "protocol.md, Dual-LLM content",
    expected=("as it was sent",), copes=("otherwise", "none"),
)  # fmt: skip
def _shown(client: Client) -> str:
    program = "# probe\nfinal_return_value = 1"
    found = Run(client, program, show=["program"]).begin().envelope.program
    if found is None:
        return "none"
    return "as it was sent" if found.strip() == program else "otherwise"


@probe(
    "result-json-is-read",
    "What is a tool's result that is JSON text to the program?",
    "What it says: `42` is a number.",
    "behaviour.md, P7 Tool results in dual-LLM chat",
    expected=("43",), requests=2,
)  # fmt: skip
def _json_is_read(client: Client) -> Answer:
    seen = _fed(client, "a = probe_read(n=1)\nfinal_return_value = a + 1", "42")
    return _value(seen)


@probe(
    "result-text-is-text",
    "What is a result that is not JSON?",
    "A text.",
    "behaviour.md, P7 Tool results in dual-LLM chat",
    expected=('"twelve beds"',), requests=2,
)  # fmt: skip
def _text_is_text(client: Client) -> Answer:
    seen = _fed(client, "a = probe_read(n=1)\nfinal_return_value = a", "twelve beds")
    return _value(seen)


@probe(
    "result-strict-parsing",
    "What does `strict_tool_result_parsing` do for a tool without an output schema?",
    "Its result stays a text.",
    "protocol.md, Tool results with metadata",
    expected=('"42"',), copes=("42",), requests=2,
)  # fmt: skip
def _strict(client: Client) -> Answer:
    fsm = {"strict_tool_result_parsing": True}
    seen = _fed(client, "a = probe_read(n=1)\nfinal_return_value = a", "42", fsm=fsm)
    return _value(seen)


@probe(
    "result-wrapped",
    "What is a result with `wrap_tool_result`?",
    '`{"ok": true, "value": …}`. The client switches it off for graphs.',
    _SERVER, "protocol.md, X-Config",
    expected=('{"ok": true, "value": 42}',), of="local server", requests=2,
)  # fmt: skip
def _wrapped(client: Client) -> Answer:
    fsm = {"wrap_tool_result": True}
    seen = _fed(client, "a = probe_read(n=1)\nfinal_return_value = a", "42", fsm=fsm)
    return _value(seen)


def _wrapper(value: Any, combine: str | None = None, *names: str) -> str:
    lists = {
        "producers": list(names),
        "consumers": ["*"],
        "tags": [f"tag-{name}" for name in names],
    }
    how = {} if combine is None else {"combine_meta": combine}
    return json.dumps({"value": value, "is_sequrity_var": True, "meta": lists, **how})


def _labelled(client: Client, content: str, *, fixed: dict[str, Any] | None = None) -> Labels:
    variables = {"given": fixed} if fixed else None
    call = "probe_send(text=given)" if fixed else "probe_send(text='x')"
    seen = _fed(client, f"a = {call}\nfinal_return_value = a", content, variables=variables)
    if seen.outcome != "success" or seen.envelope.labels is None:
        raise NoAnswer(seen.unexpected("a value with labels"))
    return seen.envelope.labels


def _names(labels: Labels) -> str:
    """Labels that the probe gave, without those that a service adds by itself."""
    ours = [*labels.producers, *labels.tags]
    return ", ".join(sorted(name for name in ours if name.startswith(("probe-", "tag-")))) or "none"


@probe(
    "labels-of-result",
    "Does a result bring labels of its own?",
    "It does, as the object of the documentation.",
    "protocol.md, Tool results with metadata", "behaviour.md, M5 Order within one call",
    expected=("probe-mail, tag-probe-mail",), requests=2,
)  # fmt: skip
def _of_result(client: Client) -> Answer:
    labels = _labelled(client, _wrapper("hello", None, "probe-mail"))
    return Answer(_names(labels), _json(labels.to_wire()))


@probe(
    "labels-ignored",
    "Does `combine_meta: ignore` keep the labels of the wrapper out?",
    "It does. The client wraps untrusted texts so, for they may look like a wrapper.",
    "security.md", "protocol.md, Tool results with metadata",
    expected=("none",), requests=2,
)  # fmt: skip
def _ignored(client: Client) -> Answer:
    labels = _labelled(client, _wrapper("hello", "ignore", "probe-mail"))
    return Answer(_names(labels), _json(labels.to_wire()))


@probe(
    "labels-forged",
    "Are labels in a wrapper within a wrapper read?",
    "They are not: what stands in `value` is data.",
    "security.md", "behaviour.md, M5 Order within one call",
    expected=("none",), requests=2,
)  # fmt: skip
def _forged(client: Client) -> Answer:
    forged = _wrapper("hello", "replace", "probe-forged")
    labels = _labelled(client, _wrapper(json.loads(forged), "ignore"))
    return Answer(_names(labels), _json(labels.to_wire()))


@probe(
    "labels-of-arguments",
    "Does a result have the labels of the call's arguments?",
    "It does.",
    "protocol.md, Tool results with metadata", "behaviour.md, M1 Join",
    expected=("probe-given, tag-probe-given",), requests=2,
)  # fmt: skip
def _of_arguments(client: Client) -> Answer:
    meta = {"producers": ["probe-given"], "consumers": ["*"], "tags": ["tag-probe-given"]}
    labels = _labelled(client, "hello", fixed={"value": "x", "meta": meta})
    return Answer(_names(labels), _json(labels.to_wire()))


@probe(
    "labels-replaced",
    "Does `combine_meta: replace` take away the labels of the arguments?",
    "By the documentation it does. The client does not send it; the local server asks for leave.",
    "protocol.md, Tool results with metadata", _SERVER,
    expected=("refused", "tag-probe-mail", "probe-mail, tag-probe-mail"),
    copes=("probe-given, probe-mail, tag-probe-given, tag-probe-mail",), requests=2,
)  # fmt: skip
def _replaced(client: Client) -> Answer:
    meta = {"producers": ["probe-given"], "consumers": ["*"], "tags": ["tag-probe-given"]}
    run = Run(
        client, "a = probe_send(text=given)\nfinal_return_value = a",
        variables={"given": {"value": "x", "meta": meta}},
    )  # fmt: skip
    run.begin()
    seen = run.answer(_wrapper("hello", "replace", "probe-mail"), any_status=True)
    if seen.outcome != "success" or seen.envelope.labels is None:
        return Answer("refused", seen.said)
    return Answer(_names(seen.envelope.labels), _json(seen.envelope.labels.to_wire()))


@probe(
    "labels-of-plain-result",
    "Which labels has a result that brings none?",
    "Perhaps names that begin with `__`, such as `__non_executable`; no others.",
    "protocol.md, X-Policy", "behaviour.md, M5 Order within one call",
    expected=("names with __ alone", "none"), requests=2,
)  # fmt: skip
def _of_plain(client: Client) -> Answer:
    labels = _labelled(client, "hello")
    names = [*labels.producers, *labels.tags]
    if not names:
        return Answer("none", _json(labels.to_wire()))
    is_own = all(name.startswith("__") for name in names)
    return Answer("names with __ alone" if is_own else "others", _json(labels.to_wire()))


@probe(
    "labels-of-branch",
    "Does what is assigned under a branch have the labels of its condition, in mode `standard`?",
    "It does not.",
    "behaviour.md, M2 What an expression takes up",
    expected=("none",), requests=2,
)  # fmt: skip
def _of_branch(client: Client) -> Answer:
    program = "a = probe_read(n=1)\nb = 0\nif a == 'hello':\n    b = 1\nfinal_return_value = b"
    return _labels(_fed(client, program, _wrapper("hello", None, "probe-mail")))


@probe(
    "labels-of-comparison",
    "Does a comparison have the labels of what it compares?",
    "It does.",
    "behaviour.md, M2 What an expression takes up",
    expected=("probe-mail, tag-probe-mail",), requests=2,
)  # fmt: skip
def _of_comparison(client: Client) -> Answer:
    program = "a = probe_read(n=1)\nfinal_return_value = a == 'hello'"
    return _labels(_fed(client, program, _wrapper("hello", None, "probe-mail")))


@probe(
    "variables-with-labels",
    "Do `context_vars` bring labels into a program?",
    "They do.",
    _GRAPH,
    expected=("probe-given, tag-probe-given; consumers probe-reader",),
)  # fmt: skip
def _with_labels(client: Client) -> Answer:
    meta = {
        "producers": ["probe-given"],
        "consumers": ["probe-reader"],
        "tags": ["tag-probe-given"],
    }
    run = Run(client, "final_return_value = given", variables={"given": {"value": 1, "meta": meta}})
    labels = run.begin().envelope.labels
    if labels is None:
        raise NoAnswer(run.seen.unexpected("a value with labels"))
    return Answer(f"{_names(labels)}; consumers {', '.join(sorted(labels.consumers))}")


@probe(
    "variables-without-labels",
    "Who may have a variable whose `meta` is left out?",
    "Everyone, here. By the SDK's defaults it would be nobody. The client always sends `meta`.",
    _GRAPH, _SERVER,
    expected=("everyone",), copes=("nobody",),
)  # fmt: skip
def _without_labels(client: Client) -> Answer:
    run = Run(client, "final_return_value = given", variables={"given": {"value": 1}})
    labels = run.begin().envelope.labels
    if labels is None:
        raise NoAnswer(run.seen.unexpected("a value with labels"))
    who = {frozenset({"*"}): "everyone", frozenset(): "nobody"}
    return Answer(who.get(labels.consumers, "others"), _json(labels.to_wire()))


@probe(
    "snapshot-form",
    "What form has `namespace_snapshot`?",
    "Each name has `value` and `meta`. Labels of a graph's fields are read from it.",
    "protocol.md, Dual-LLM content", "behaviour.md, G3 Labels of a run",
    expected=("name to value and meta",), copes=("none",),
)  # fmt: skip
def _snapshot(client: Client) -> Answer:
    seen = Run(client, "a = 1\nfinal_return_value = a", show=["namespace_snapshot"]).begin()
    found = seen.envelope.namespace_snapshot
    if found is None:
        return Answer("none")
    one = found.get("a")
    is_known = isinstance(one, dict) and {"value", "meta"} <= one.keys()
    keys = sorted(one) if isinstance(one, dict) else [type(one).__name__]
    return Answer("name to value and meta" if is_known else "another form", ", ".join(keys))


@probe(
    "parse-needs-schema",
    "Does `parse_with_ai` need `output_schema`?",
    "It does.",
    _SERVER,
    expected=("failure",), copes=("success",), of="local server", models=1,
)  # fmt: skip
def _needs_schema(client: Client) -> Answer:
    return _ran(client, "final_return_value = parse_with_ai(query='Name a colour.')")


@probe(
    "parse-needs-have-enough-info",
    "Does that schema need the boolean `have_enough_info`?",
    "It does.",
    _SERVER,
    expected=("failure",), copes=("success",), of="local server", models=1,
)  # fmt: skip
def _needs_info(client: Client) -> Answer:
    schema = _SCHEMA % "}, "
    call = f"parse_with_ai(query='Name a colour.', output_schema={schema})"
    return _ran(client, f"final_return_value = {call}")


@probe(
    "parse-answers",
    "Is the result of `parse_with_ai` read like a dict?",
    "It is, and it has the field `have_enough_info`.",
    _SERVER,
    expected=("a boolean",), models=1,
)  # fmt: skip
def _parse_answers(client: Client) -> Answer:
    schema = _SCHEMA % '"have_enough_info": {"type": "boolean"}}, '
    program = (
        f"a = parse_with_ai(query='The sky is blue. Which colour is it?', output_schema={schema})\n"
        "final_return_value = a['have_enough_info']"
    )
    seen = Run(client, program).ask()
    if seen.outcome != "success":
        return _told(seen)
    return Answer("a boolean" if isinstance(seen.value, bool) else "another value")


@probe(
    "verify-answers",
    "Does `verify_hypothesis` take the values that a hypothesis names as keyword arguments?",
    "It does, and the result is a boolean.",
    _SERVER,
    expected=("a boolean",), copes=("another value", "failure"), models=1,
)  # fmt: skip
def _verify(client: Client) -> Answer:
    call = "verify_hypothesis(hypothesis='The text (text) names a colour.', text='blue')"
    seen = Run(client, f"final_return_value = {call}").ask()
    if seen.outcome != "success":
        return _told(seen)
    kind = "a boolean" if isinstance(seen.value, bool) else "another value"
    return Answer(kind, type(seen.value).__name__)
