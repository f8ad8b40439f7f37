"""How a program ended, as the planner is told: what is wrong and what to write, and no data.

Texts of the interpreter itself are known here and are shown whole, with the names that the program
has. A text that may come from data is never shown, unless `X-Config` asks for it.
"""

import ast
import re
from collections.abc import Collection
from collections.abc import Set as AbstractSet

from langchain_core.messages import HumanMessage

from langchain_sequrity import syntax_trees
from langchain_sequrity.headers import PlannerPrompt
from langchain_sequrity.labels import NO_LABELS
from langchain_sequrity.local.dual_llm.prompts import trusted_kind
from langchain_sequrity.local.interpreter import Labeled, ProgramRaised, ProgramRefused

ENDED = "It succeeded, and `final_return_value` is not set."
"""Feedback after a step that has no answer yet."""


SAME = "It is the same as before, and was not run again. Write another one. It failed like this:"
"""Feedback before that about an earlier program, if the planner writes it again."""


def failure_feedback(
    failed: ProgramRaised,
    prompt: PlannerPrompt,
    program: str,
    words: AbstractSet[str] = frozenset(),
    own_failures: Collection[tuple[int, str]] = (),
) -> Labeled:
    """Feedback about an error; with its text and labels only if `debug_info_level` is `extra`.

    Args:
        failed: The error.
        prompt: The section of `X-Config`.
        program: The program; the line of the error is shown.
        words: Names in the programs, which may define the type of the error.
        own_failures: Lines at which the server's own tools have failed, with their fixed texts.
    """
    level = prompt.debug_info_level
    if level == "minimal":
        return Labeled("The program failed.")
    if failed.type == "ToolError" and (failed.line, failed.message) in own_failures:
        text = f"`{failed.type}` at line {failed.line}: {failed.message}"
        return Labeled(text + shown_line(program, failed.line))
    problem = {
        "exception": f"The program raised `{trusted_kind(failed.type, words, 'Exception')}`",
        "budget": "The program reached a limit of the interpreter",
        "branch": "The policy does not let this data decide the control flow",
        "exit": "The program called `exit` with an error",
        "value": "The program returned a value that has no JSON form",
    }[failed.kind]
    text = f"{problem} at line {failed.line}."
    shows_text = level == "extra"
    reason = failed.message if shows_text else _error_text(failed, program, words)
    feedback = f"{text} {reason}".rstrip() + shown_line(program, failed.line)
    return Labeled(feedback, failed.labels if shows_text else NO_LABELS)


def _error_text(failed: ProgramRaised, program: str, words: AbstractSet[str]) -> str:
    """What is wrong and what to write, if the text of the error is the interpreter's own.

    An exception that the program raises itself may have a text of this form that consists of data.
    The interpreter's own texts are known here; names in them are shown if the program has them, and
    types. The key of a `KeyError` is data, unless all keys in its line are literals.
    """
    if not failed.by_interpreter:
        return _ADVICE_BY_ERROR.get(failed.type, "")
    line = _line_of(program, failed.line)
    for pattern, advice in _ADVICE.items():
        match = re.fullmatch(pattern, failed.message)
        if match is None:
            continue
        groups = match.groupdict()
        name = groups.get("name")
        if name is not None and not re.search(rf"\b{name}\b", line) and name not in words:
            return ""
        types = {
            key: trusted_kind(group, words, "object")
            for key, group in groups.items()
            if key != "name"
        }
        text = advice.format(**types, name=name)
        type_advice = _ADVICE_BY_TYPE.get(types.get("type", ""), "") if name else ""
        return f"{text} {type_advice}".rstrip()
    key = failed.message.strip("'\"")
    if failed.type == "KeyError" and key in _literal_keys(line):
        return f"There is no key `{key}`. {_UNKNOWN_DATA}"
    return _ADVICE_BY_ERROR.get(failed.type, "")


_UNKNOWN_DATA = (
    "What keys it has is not known. Do not take keys of it: give all of it to `parse_with_ai`, in "
    'the query, as in `query=f"Which … ? {x}"`.'
)
_TYPE = r"(?P<type>\w{1,100})"
_OTHER_TYPE = r"'(?P<other>\w{1,100})'"
_NAME = r"'(?P<name>\w{1,100})'"
_CANNOT_LOOP = "The value cannot be looped over."
_IS_NONE = "The value is None: nothing was found. Test `is None` first."
# Data may choose among errors of one type: which argument `f(**data)` lacks, or why `int(data)`
# fails. So a text that depends on more than types and names of the program is not among these.
_ADVICE = {
    rf"name {_NAME} is not defined": "`{name}` is not defined.",
    rf"'{_TYPE}' object has no attribute {_NAME}": "`{type}` has no attribute `{name}`.",
    rf"string indices must be integers, not '{_TYPE}'": (
        "The value is a text (str), not a dict: it has no keys. Use all of it, or have "
        "`parse_with_ai` read it."
    ),
    rf"(?:list|tuple) indices must be integers or slices, not {_TYPE}": (
        "The value is a list, not a dict: loop over it, or take one item."
    ),
    r"'NoneType' object is not (?:subscriptable|iterable)": _IS_NONE,
    rf"'{_TYPE}' object is not subscriptable": (
        "The value is of type `{type}`, which has no keys and no items."
    ),
    rf"cannot unpack non-iterable {_TYPE} object": _CANNOT_LOOP,
    rf"'{_TYPE}' object is not iterable": _CANNOT_LOOP,
    rf"'{_TYPE}' object is not callable": "A value of type `{type}` is not a function.",
    rf"can only concatenate str \(not \"{_TYPE}\"\) to str": (
        '`+` cannot join a text and a value of type `{type}`. Write f"…{{value}}".'
    ),
    rf"unsupported operand type\(s\) for [^:]{{1,10}}: '{_TYPE}' and {_OTHER_TYPE}": (
        "The values are of the types `{type}` and `{other}`. To join texts and other values, write "
        'one f"…{{value}}…".'
    ),
    rf"'[<>=]{{1,2}}' not supported between instances of '{_TYPE}' and {_OTHER_TYPE}": (
        "The values are of the types `{type}` and `{other}`. Convert one of them first. Of a dict, "
        "take a value."
    ),
}
_ADVICE_BY_TYPE = {
    "dict": "Keys of a dict are read in brackets.",
    "list": "Loop over the list, or take one item.",
    "NoneType": _IS_NONE,
    "str": "The value is a text: use all of it, or have `parse_with_ai` read it.",
}
_ADVICE_BY_ERROR = {
    "JSONDecodeError": "The text is not JSON. A result that is JSON comes loaded already.",
    "StopIteration": "Nothing was found. Give `next` a second argument.",
    "ToolError": (
        "The tool failed. What it said is data, and not shown. Do not guess arguments: look them "
        "up with another tool first. Or catch `ToolError`, and say so in `final_return_value`."
    ),
    "KeyError": f"There is no such key. {_UNKNOWN_DATA}",
    "ValueError": "A value is not of the form that the operation needs, or a list is empty.",
    "IndexError": "There is no such item. Look at the length first.",
}
_WIDEST = 200
_MAY_LOOK_UP = (ast.Call, ast.Mod, ast.Match)  # other nodes that may raise a `KeyError`


def _literal_keys(line: str) -> frozenset[str]:
    """The keys in a line that is a whole statement, if it can look up no others."""
    if len(line) > _WIDEST:
        return frozenset()
    statement = f"{line.strip()} pass" if line.endswith(":") else line.strip()
    try:
        nodes = [*ast.walk(syntax_trees.parse(statement))]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return frozenset()
    keys = [node.slice for node in nodes if isinstance(node, ast.Subscript)]
    texts = [key.value for key in keys if isinstance(key, ast.Constant)]
    if len(texts) < len(keys) or any(isinstance(node, _MAY_LOOK_UP) for node in nodes):
        return frozenset()
    return frozenset(text for text in texts if isinstance(text, str))


def _line_of(program: str, number: int) -> str:
    lines = program.split("\n")
    return lines[number - 1] if 0 < number <= len(lines) else ""


def shown_line(program: str, number: int, column: int = 0) -> str:
    """A line of a program with a caret under it.

    Args:
        program: The program.
        number: The line, from 1.
        column: The column, from 1; 0 means the beginning of the line.
    """
    line = _line_of(program, number)
    if not line.strip() or len(line) > _WIDEST:
        return ""
    caret = column - 1 if 0 < column <= len(line) + 1 else len(line) - len(line.lstrip())
    return f"\n    {line}\n    {' ' * caret}^"


def refusal_feedback(
    refused: ProgramRefused, program: str, tools: Collection[str], *, is_cut: bool
) -> str:
    """Feedback about a refused program; it contains only the program's own text.

    Args:
        refused: The reason.
        program: The program.
        tools: Names of the tools in programs.
        is_cut: Whether the planner's answer was cut off.
    """
    if is_cut:
        return "It was cut off before its end, at the limit of an answer. Write a shorter one."
    line = shown_line(program, refused.line, refused.column)
    if refused.corrected is not None:
        head = f"{_STILL_WRONG} {refused.still_wrong}" if refused.still_wrong else _CORRECTED
        return f"{_REFUSED} {refused}{line}\n{head}\n{refused.corrected.strip()}\n"
    listed = ", ".join(f"`{name}`" for name in tools)
    hint = f" Whatever is outside of the program is reached by the tools {listed}." if tools else ""
    return f"{_REFUSED} {refused}{hint}{line}"


_REFUSED = "It was refused before it ran."
_CORRECTED = "Corrected, it is this one. Is it what the user asks for? Then write it."
_STILL_WRONG = "Corrected as far as possible, it is the one below. Still wrong in it:"


def denial_feedback(tool: str, line: int, prompt: PlannerPrompt, program: str) -> str:
    """Feedback about a denied call."""
    if prompt.debug_info_level == "minimal":
        return "The program failed."
    return f"The policy denied the call of `{tool}` at line {line}." + shown_line(program, line)


def next_program_request(
    query: str, outcome: str, variables: str, calls: str = "", *, steps_build_up: bool
) -> HumanMessage:
    """Ask for another program; the message repeats the query.

    Args:
        query: The query.
        outcome: The outcome of the last program.
        variables: The list of variables.
        calls: The list of calls.
        steps_build_up: Whether the programs are steps; otherwise each does the whole task.

    Returns:
        The message.
    """
    task = "the program of the next step" if steps_build_up else "one that does the whole task"
    report = "\n".join(filter(None, (outcome, variables)))
    report += "\n" if "\n" in report else " "
    question = f"{query}\n\n{calls}" if calls else query
    return HumanMessage(f"{question}\n\n(The last program: {report}Write {task}.)")
