"""Mistakes in policies that parse: `check` finds them, `compile_policy` refuses the errors."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import pytest
from langchain_core.tools import InjectedToolArg, StructuredTool
from langchain_core.tools import tool as langchain_tool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import BaseModel
from typing_extensions import TypedDict

from langchain_sequrity import sqrt
from langchain_sequrity.errors import PolicySyntaxError, UsageError
from langchain_sequrity.headers import PolicyHeader
from langchain_sequrity.labels import Labels
from langchain_sequrity.sqrt import (
    Argument,
    Call,
    Engine,
    Finding,
    compile_policy,
    parse,
)
from tests.sqrt.calls import BROUGHT

check = partial(sqrt.check, labels=BROUGHT)

LEND = {
    "type": "function",
    "function": {
        "name": "lend_item",
        "parameters": {"type": "object", "properties": {"item": {}, "days": {}}},
    },
}
SCAN = {"name": "scan_item", "input_schema": {"type": "object", "properties": {"item": {}}}}
WIDE = {"name": "wide", "parameters": {"properties": {"city": {}}, "additionalProperties": {}}}
OPEN = {"name": "run", "input_schema": {"properties": {"x": {}}, "additionalProperties": True}}


def only(text: str, tools: Sequence[Any] | None = None) -> Finding:
    (finding,) = check(text, tools)
    return finding


# Errors

ERRORS = [
    ("an undefined predicate", 'tool "x" { must deny when fragile; }', "`fragile` is not defined", (1, 27)),
    ("an undefined set", 'tool "x" -> @tags |= marks;', "`marks` is not defined", (1, 22)),
    ("an undefined name in a binding", "let a = b;", "`b` is not defined", (1, 9)),
    ("true as a condition", 'tool "x" { must deny when true; }', "`true` is a name here, not a constant", (1, 27)),
    ("use before definition", 'let a = b;\nlet b = {"x"};', "`b` is used before its definition in line 2", (1, 9)),
    ("a name for itself", "let a = a;", "`a` is used before its definition in line 1", (1, 9)),
    ("the same name twice", 'let a = {"x"};\nlet a = {"y"};', "`a` is already defined in line 1", (2, 1)),
    ("a predicate as a set", 'let p = a.tags is empty;\ntool "x" { must deny when a.tags overlaps p; }', "`p` is a predicate, not a set", (2, 43)),
    ("a predicate in set algebra", 'let p = a.tags is empty;\nlet s = {"x"} | p;', "`p` is a predicate, not a set", (2, 17)),
    ("a set as a predicate", 'let s = {"x"};\ntool "x" { must deny when s; }', "`s` is a set, not a predicate", (2, 27)),
    ("a domain as a predicate", "let n = int 1..5;\nlet p = not n;", "`n` is a set, not a predicate", (2, 13)),
    ("the result in a check", 'tool "x" { must deny when "a" in @result.tags; }', "There is no `@result` before the call", (1, 34)),
    ("the value of the result in a check", 'tool "x" { must deny when @result.value == 1; }', "There is no `@result` before the call", (1, 27)),
    ("the result before the call", 'tool "x" { session before { @tags |= @result.tags; } }', "There is no `@result` before the call", (1, 38)),
    ("a change of the result before the call", 'tool "x" { session before { @result.tags = {}; } }', "There is no `@result` before the call", (1, 29)),
    ("the result through a name", 'let p = "a" in @result.tags;\ntool "x" { must deny when p; }', "There is no `@result` before the call", (1, 16)),
    ("the result in a one-liner before the call", 'tool "x" -> session before @tags |= {"a"} when "b" in @result.tags;', "There is no `@result` before the call", (1, 55)),
    ("a regex that does not compile", 'tool "x" { must deny when a.value in {r"("}; }', "This cannot be read:", (1, 39)),
    ("a regex in a domain that does not compile", 'let s = str matching r"[";', "This cannot be read:", (1, 9)),
    ("a regex as a tool that does not compile", 'tool r"*" { must deny always; }', "This cannot be read:", (1, 6)),
    ("a regex that is too long", f'let s = {{r"{"a" * 1001}"}};', "at most 1000 characters", (1, 10)),
    ("a wildcard that is too long", f'let s = {{w"{"a" * 1001}"}};', "at most 1000 characters", (1, 10)),
    ("a time that is none", 'let d = datetime d"next week";', "'next week' is not a time in ISO 8601", (1, 18)),
    ("a time that is none in a plain text", 'let d = datetime "soon";', "'soon' is not a time", (1, 9)),
    ("a time that is none in a comparison", 'let p = a.value == d"soon";', "'soon' is not a time", (1, 20)),
    ("a time that is none as a member", 'let p = d"soon" in {"x"};', "'soon' is not a time", (1, 9)),
    ("a pattern as a label", 'tool "x" -> @tags |= {w"a*"};', "Labels are plain texts", (1, 22)),
    ("a number as a label", 'tool "x" -> @tags |= {1};', "Labels are plain texts", (1, 22)),
    ("a domain as labels", 'let n = int 1;\ntool "x" -> @tags |= n;', "Labels are plain texts", (2, 22)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message", "at"), [e[1:] for e in ERRORS], ids=[e[0] for e in ERRORS]
)
def test_check_and_compile_report_an_error_at_its_place(
    text: str, message: str, at: tuple[int, int]
) -> None:
    errors = [found for found in check(text) if found.severity == "error"]
    assert [(found.line, found.column) for found in errors] == [at]
    assert message in errors[0].message
    with pytest.raises(PolicySyntaxError) as caught:
        compile_policy(text)
    assert message in str(caught.value)
    assert (caught.value.line, caught.value.column) == at
    assert caught.value.source.endswith("^")


def test_check_finds_all_errors_in_source_order() -> None:
    found = check('tool "x" { must deny when a; must deny when b; }\nlet c = d;')
    assert [one.line for one in found] == [1, 1, 2]
    assert all(one.severity == "error" for one in found)


def test_a_syntax_error_is_the_only_finding() -> None:
    finding = only('let a = b;\ntool "x" {')
    assert (finding.severity, finding.line, finding.column) == ("error", 2, 11)
    assert finding.message.startswith("Expected `must`")
    assert "\n" not in finding.message


@pytest.mark.parametrize("name", ["fragil", "fragiles", "fargile"])
def test_a_misspelt_name_gets_the_right_one_as_a_hint(name: str) -> None:
    text = f'let fragile = a.tags is empty; tool "x" {{ must deny when {name}; }}'
    assert only(text).hint == "Did you mean `fragile`?"


@pytest.mark.parametrize("made", [str, parse, compile_policy, PolicyHeader.from_sqrt])
def test_a_policy_is_checked_in_any_form(made: Callable[[str], Any]) -> None:
    (finding,) = check(made('tool "send_mial" { must deny always; }'), ["send_mail"])
    assert finding.hint == "Did you mean `send_mail`?"


@pytest.mark.parametrize("made", [str, parse])
def test_all_errors_of_a_policy_are_found_in_any_form(made: Callable[[str], Any]) -> None:
    assert [one.line for one in check(made("let a = b;\nlet c = d;"))] == [1, 2]


def test_a_built_policy_is_checked_at_the_places_of_its_text() -> None:
    built = sqrt.policy(sqrt.tool("x").must_deny().should_allow())
    assert check(built) == check(str(built))
    assert [one.line for one in check(built)] == [3]


# Warnings

WARNINGS = [
    ("union within intersection", "let s = a.tags & b.tags | c.tags;", "Union binds tighter than intersection"),
    ("a backslash in a text", 'let s = {"a\\nb"};', "How a backslash in a text is read is unknown"),
    ("a doubled backslash in a regex", 'let s = {r"a\\\\.b"};', "How a doubled backslash in a regex is read is unknown"),
    ("a bracket in a wildcard", 'let s = {w"[ab]*"};', "How `[` and backslashes in a wildcard are read is unknown"),
    ("a regex that may take long", 'let s = {r"(a+)+b"};', "This regex can take exponential time"),
    ("alternatives that are repeated", 'let s = {r"(a|aa)*b"};', "This regex can take exponential time"),
    ("an empty range", "let n = int 5..1;", "No number lies in this range"),
    ("a range without its only number", "let n = int 5..<5;", "No number lies in this range"),
    ("a fraction for integers", "let n = int 0.5..3;", "The bounds of whole numbers are whole"),
    ("a fraction for lengths", 'let s = str matching r".*" length ..0.5;', "The bounds of whole numbers are whole"),
    ("an empty range of times", 'let d = datetime d"2027-02-01T00:00:00Z"..d"2027-01-01T00:00:00Z";', "No time lies in this range"),
    ("times without a zone", 'let d = datetime d"2027-01-01"..d"2027-02-01";', "The zone of a time without one is unknown"),
    ("the value of the session", "let p = @session.value == 1;", "The value of `@session.value` is unknown"),
    ("labels against patterns", 'let p = a.tags overlaps {w"x*"};', "How labels compare with patterns"),
    ("the short form in a check", 'tool "x" { must deny when "a" in @tags; }', "What `@tags` and the like mean here is unknown"),
    ("the short form in a one-liner's condition", 'tool "x" -> @tags |= {"a"} when "b" in @tags;', "What `@tags` and the like mean here is unknown"),
    ("a change of an argument", 'tool "x" { result { a.tags |= {"b"}; } }', "Whether the service changes these labels here is unknown"),
    ("a change of the session for a result", 'tool "x" { result { @session.tags |= {"b"}; } }', "Whether the service changes these labels here is unknown"),
    ("a change of the result for the session", 'tool "x" { session after { @result.tags |= {"b"}; } }', "Whether the service changes these labels here is unknown"),
    ("two priorities", 'tool "x" { priority 1; priority 2; must deny always; }', "Which of several priorities counts is unknown"),
    ("a priority of an update", 'tool "x" [5] -> @tags |= {"a"};', "Whether a priority changes the order of updates is unknown"),
    ("must allow beside should allow", 'tool "x" { must allow when "a" in i.tags; should allow when "b" in i.tags; }', "Beside another rule that allows, this rule may restrict nothing"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"), [w[1:] for w in WARNINGS], ids=[w[0] for w in WARNINGS]
)
def test_a_surprising_construct_gets_a_warning_and_compiles(text: str, message: str) -> None:
    finding = only(text)
    assert finding.severity == "warning"
    assert message in finding.message
    assert isinstance(compile_policy(text), Engine)


@pytest.mark.parametrize(
    "text",
    [
        "let s = (a.tags & b.tags) | c.tags;",
        "let s = a.tags & (b.tags | c.tags);",
        'let s = {r"^[a-z]+(-[a-z]+)?$"};',
        'let s = {r"a\\.b"};',
        'let d = datetime d"2027-01-01T00:00:00Z"..d"2027-02-01T00:00:00+01:00";',
        "let n = int 5..5;",
        "let n = int ..inf;",
        'tool "x" { session after { @result.tags |= {"a"}; } }'.replace("@result", "@session"),
        'tool "x" { must allow when "a" in i.tags; should deny always; }',
    ],
)
def test_a_policy_without_mistakes_has_no_findings(text: str) -> None:
    assert check(text) == []


# Rules that decide nothing


@pytest.mark.parametrize(
    ("rules", "dead"),
    [
        ("must deny always; must deny when p;", [2]),
        ("must deny when p; must deny always;", [1]),
        ("must deny always; must deny always;", [2]),
        ("must deny always; must allow when p; should allow always;", [2, 3]),
        ("must allow always; should deny when p;", [2]),
        ("must allow always; must deny when p;", []),
        ("should deny always; should allow always;", [2]),
        ("should allow always; should deny always;", [1]),
        ("should allow always; should allow always;", [2]),
        ("should deny always; should allow when p;", []),
        ("should deny always; must allow when p;", []),
        ("must deny when p; must deny when q; should allow always;", []),
    ],
)
def test_a_rule_that_has_no_effect_because_of_another_rule_is_found(
    rules: str, dead: list[int]
) -> None:
    lines = rules.replace("; ", ";\n")
    found = check(f'let p = a.tags is empty; let q = b.tags is empty; tool "x" {{\n{lines}\n}}')
    unreachable = [one for one in found if "decides nothing" in one.message]
    assert [one.line - 1 for one in unreachable] == dead


# Tools


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ('tool "lend_itm" { must deny always; }', "There is no tool `lend_itm`", "Did you mean `lend_item`?"),
        ('tool "send" { must deny always; }', "There is no tool `send`", ""),
        ('tool "*" { must deny always; }', "There is no tool `*`", 'A regex matches many tools: `tool r".*"`'),
        ('tool ".*" { must deny always; }', "There is no tool `.*`", 'A regex matches many tools: `tool r".*"`'),
        ('tool "lend*" { must deny always; }', "There is no tool `lend*`", 'A regex matches many tools: `tool r"^lend.*$"`'),
        ('tool "lend_item" { must deny when "a" in session.tags; }', "`lend_item` has no argument `session`", "Did you mean `@session`?"),
        ('tool "lend_item" { must deny when args.tags is empty; }', "`lend_item` has no argument `args`", "Did you mean `@args`?"),
        ('tool "lend_itm" -> @tags |= {"x"};', "There is no tool `lend_itm`", "Did you mean `lend_item`?"),
        ('tool r"^lent_" { must deny always; }', "No tool matches `^lent_`", ""),
        ('tool "lend_item" { must deny when "x" in itme.tags; }', "`lend_item` has no argument `itme`", "Did you mean `item`?"),
        ('tool "lend_item" { must deny when day.value == 1; }', "`lend_item` has no argument `day`", "Did you mean `days`?"),
        ('tool "lend_item" -> @tags |= itm.tags;', "`lend_item` has no argument `itm`", "Did you mean `item`?"),
        ('let p = itm.tags is empty; tool "lend_item" { must deny when p; }', "`lend_item` has no argument `itm`", "Did you mean `item`?"),
        ('tool r"^.*_item$" { must deny when "x" in room.tags; }', "None of these tools has an argument `room`", ""),
    ],
)  # fmt: skip
def test_a_misspelt_tool_or_argument_is_an_error(text: str, message: str, hint: str) -> None:
    finding = only(text, [LEND, SCAN])
    assert (finding.severity, finding.message, finding.hint) == ("error", message, hint)


def test_an_argument_that_only_some_tools_have_is_a_warning() -> None:
    finding = only('tool r"^.*_item$" { must deny when days.value == 1; }', [LEND, SCAN])
    assert finding.severity == "warning"
    assert finding.message == "Not all of these tools have an argument `days`"


@pytest.mark.parametrize(
    "text",
    [
        'tool "lend_item" { must deny when "x" in item.tags and days.value == 3; }',
        'tool r"^lend.*$" { must deny when days.value == 3; }',
        'tool "parse_with_ai" { must deny when "x" in query.tags; }',
        'tool r".*" { must deny when @args.tags overlaps {"x"}; }',
        'tool "run" { must deny when anything.tags is empty; }',
        'tool "plain" { must deny when anything.tags is empty; }',
    ],
)
def test_existing_tools_and_arguments_have_no_findings(text: str) -> None:
    assert check(text, [LEND, SCAN, OPEN, "plain"]) == []


@pytest.mark.parametrize(
    ("text", "severity", "message", "hint"),
    [
        ('tool "nope" {}', "error", "There is no tool `nope`", ""),
        ('tool "nope" { priority 3; }', "error", "There is no tool `nope`", ""),
        ('tool "nope" { result {} }', "error", "There is no tool `nope`", ""),
        ('tool "parse_with_ai" { must deny when "x" in quer.tags; }', "error", "`parse_with_ai` has no argument `quer`", "Did you mean `query`?"),
        ('tool r"^.*$" { must deny when "x" in itme.tags; }', "error", "None of these tools has an argument `itme`", "Did you mean `item`?"),
        ('tool r"^lend" { must deny always; }', "warning", "Whether `^lend` matches `lend_item` is unknown", "Write `^…$` around the regex, and `.*` where anything may stand"),
        ('tool "wide" { must deny when "x" in citty.tags; }', "warning", "`wide` does not declare the argument `citty`", "Did you mean `city`?"),
    ],
)  # fmt: skip
def test_an_item_that_may_protect_nothing_is_found_in_every_place(
    text: str, severity: str, message: str, hint: str
) -> None:
    finding = only(text, [WIDE] if "wide" in text else [LEND, SCAN])
    assert (finding.severity, finding.message, finding.hint) == (severity, message, hint)


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/$defs/A", "$defs": {"A": {"properties": {"a": {}}}}},
        {"properties": {"b": {}}, "allOf": [{"properties": {"a": {}}}]},
        {"properties": {"b": {}}, "patternProperties": {"^a": {}}},
        {"properties": {"b": {}}, "additionalProperties": {}},
        {"properties": {"b": {}}, "additionalProperties": {"type": "string"}},
    ],
)
def test_an_argument_is_not_an_error_if_another_part_of_the_schema_may_declare_it(
    schema: Any,
) -> None:
    policy = 'tool "send" { must deny when a.value == "x"; }'
    assert check(policy, [{"name": "send", "parameters": schema}]) == []


@langchain_tool
def lend(item: str, state: Annotated[str, InjectedToolArg]) -> str:
    """Lend an item."""
    return item + state


LOOSE = StructuredTool.from_function(
    lambda **given: given,
    name="loose",
    description="Takes what comes.",
    args_schema={"type": "object", "additionalProperties": True},
)


def test_check_reads_langchain_tools_without_their_injected_arguments() -> None:
    assert check('tool "lend" { must deny when "x" in item.tags; }', [lend]) == []
    finding = only('tool "lend" { must deny when "x" in itme.tags; }', [lend])
    assert finding.hint == "Did you mean `item`?"
    finding = only('tool "lend" { must deny when "x" in state.tags; }', [lend])
    assert finding.message == "`lend` has no argument `state`"
    assert check('tool "loose" { must deny when "x" in item.tags; }', [LOOSE]) == []


def pay(euros: int, note: str = "") -> str:
    """Pay."""
    return f"{euros} {note}"


class Pay(BaseModel):
    """Pay."""

    euros: int
    note: str = ""


class Paying(TypedDict):
    """Pay."""

    euros: int
    note: str


@pytest.mark.parametrize(
    "tool", [pay, Pay, Paying, langchain_tool(pay), convert_to_openai_tool(pay)]
)
def test_check_accepts_the_tool_forms_of_bind_tools(tool: Any) -> None:
    name = convert_to_openai_tool(tool)["function"]["name"]
    assert check(f'tool "{name}" {{ must deny when note.value == "x"; }}', [tool]) == []
    finding = only(f'tool "{name}" {{ must deny when euro.value == 1; }}', [tool])
    assert (finding.severity, finding.hint) == ("error", "Did you mean `euros`?")


def test_check_reads_the_policy_file_that_a_path_names(tmp_path: Path) -> None:
    file = tmp_path / "policy.sqrt"
    file.write_text('// lend\ntool "lend" { must deny when p; }\n')
    (finding,) = check(file)
    assert (finding.line, finding.message) == (2, "`p` is not defined")
    with pytest.raises(UsageError, match=r"cannot be read: No such file .*Check the path"):
        check(tmp_path / "none.sqrt")
    with pytest.raises(UsageError, match="is in Cedar, and only SQRT can be read here"):
        check(tmp_path / "policy.cedar")


@pytest.mark.parametrize("tools", ["send", LEND, lend, 5])
def test_tools_that_are_not_a_list_are_refused(tools: Any) -> None:
    with pytest.raises(UsageError, match=r"`tools` must be a list of tools; got .* Write `\[…\]`"):
        check("", tools)


def test_names_of_tools_and_arguments_are_not_checked_without_tools() -> None:
    assert check('tool "lend_itm" { must deny when "x" in itme.tags; }') == []


@pytest.mark.parametrize("properties", [None, 3, "text", ["text"]])
def test_a_tool_whose_arguments_are_unknown_is_a_usage_error(properties: Any) -> None:
    tool = {"name": "send", "parameters": {"type": "object", "properties": properties}}
    with pytest.raises(UsageError, match="`properties` of the tool `send` must be an object"):
        check("", [tool])


@pytest.mark.parametrize("tool", [5, None, {}, {"function": {}}, {"function": 1}, {"name": 3}])
def test_a_value_that_is_not_a_tool_is_a_usage_error(tool: Any) -> None:
    with pytest.raises(UsageError, match="`tools` takes names of tools, definitions"):
        check("", [tool])


# Hostile policies


@pytest.mark.long(sample=1)
@pytest.mark.parametrize(
    "text",
    [
        'tool "x" {' + "must deny always;" * 3_800 + "}",
        'tool "x" {' + "should allow when p;must allow when p;" * 1_600 + "}",
        "".join(f"let undefined{n} = other{n};" for n in range(2_000)),
        "let s = {" + ",".join(f'r"(((((a+)+)+)+)+){n}"' for n in range(2_000)) + "};",
        f'let s = {{r"{"[" * 60_000}"}};',
        f'let s = {{r"{"(+" * 30_000}"}};',
        f"let {'a' * 30_000} = {{}}; let b = {'a' * 29_999};",
        "let a0 = {}; " + "".join(f"let a{n} = a{n - 1} | a{n - 1};" for n in range(1, 2_000)),
        "let x = " + " | ".join(f"a{n}.tags" for n in range(3_000)) + ";" + 'tool "t" { must deny when a.tags == x; }' * 200,
        'tool r"(a+)+$" { must deny when p; }' * 1_500,
        "".join(f'tool r"^(a|aa)+(c{{{n}}})?$" {{ must deny always; }}' for n in range(60)),
    ],
    ids=lambda text: f"{text[:30]!r}",
)  # fmt: skip
def test_checking_a_hostile_policy_takes_bounded_time(text: str) -> None:
    start = time.process_time()
    found = check(text, ["a" * 60, "x", "a" * 60 + "!", "a" * 60 + "?"])
    assert time.process_time() - start < 8
    for one in found:
        assert len(one.message) + len(one.hint) < 600


def test_the_depth_of_names_defined_by_other_names_is_limited() -> None:
    text = "let a0 = x.tags is empty;" + "".join(f"let a{n} = not a{n - 1};" for n in range(1, 200))
    (finding,) = [one for one in check(text) if "names are nested" in one.message][:1]
    assert finding.severity == "error"
    with pytest.raises(PolicySyntaxError, match="names are nested"):
        compile_policy(text)


def test_evaluation_time_does_not_double_with_each_name_that_uses_another_twice() -> None:
    text = "let a0 = x.tags is empty;"
    text += "".join(f"let a{n} = a{n - 1} and a{n - 1};" for n in range(1, 26))
    text += "let s0 = x.tags;" + "".join(f"let s{n} = s{n - 1} | s{n - 1};" for n in range(1, 26))
    engine = compile_policy(
        text + 'tool "x" { must deny when a25; must deny when x.value in s25; }'
    )
    start = time.process_time()
    call = Call("x", {"x": Argument("v")})
    assert not engine.decide(call, Labels()).allowed
    assert time.process_time() - start < 2


@pytest.mark.parametrize("char", ["\u202e", "\x1b[31m", "\x00"])
def test_findings_are_safe_to_print(char: str) -> None:
    text = f'tool "{char}" {{ must deny when a.value in {{r"({char}"}}; }}'
    shown = "".join(one.message + one.hint for one in check(text, ["x"]))
    assert shown
    assert char not in shown


def test_a_rule_for_verify_hypothesis_may_name_any_argument() -> None:
    rule = 'must deny when mail.tags overlaps {"private"};'
    assert check(f'tool "verify_hypothesis" {{ {rule} }}', ["send"]) == []
    [problem] = check(f'tool "parse_with_ai" {{ {rule} }}', ["send"])
    assert "no argument `mail`" in str(problem)
