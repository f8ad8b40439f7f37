"""Denials in the texts and checks of the service, to `Denial`.

Recorded texts (`docs/protocol.md`, Dual-LLM content):

    Tool call <name> denied by argument checking policies. Tool calls: {…, 'kwargs_with_meta':
    {'<argument>': {'value': …, 'meta': {…}}}, …}. Checking results: {'final_verdict':
    'soft_denied', …, 'denial_reasons': [{'enforcement_level': 'soft'}]}
    Tool call to '<name>' is denied by argument checking policies. … Context: {'args': {…}}

The printed values are data that anybody may have written, and may look like the text around them.
So they are never searched: from the first heading on, the text must be headings and Python literals
up to its end. Otherwise the whole tail is ignored.

Codes, texts and the shape of checks are not published; only recordings are known. What is not found
is not reported. Nothing here decides whether a turn succeeded.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, Literal, TypeVar

from langchain_core.messages import AIMessage

from langchain_sequrity.denials import Denial
from langchain_sequrity.labels import BadLabels, Labels
from langchain_sequrity.strict_json import loads
from langchain_sequrity.wire.exchange import CHECK_KEY

T = TypeVar("T")

MAX_PRINTED: Final = 1_000_000
"""Maximum length of a printed tail in characters; a longer one is ignored."""
_MAX_DEPTH = 80
_HEADING = re.compile(r"(?:^|\s|\.)(?P<name>Tool calls|Context|Checking results):\s*(?=[{\[])")
_NEXT = re.compile(r"[\s.;,]*(?:(?P<name>Tool calls|Context|Checking results):\s*|\Z)")
_TOKEN = re.compile(
    r"""\s*(?:(?P<mark>[{}\[\]:,])
    |(?P<text>'(?:[^'\\\n]|\\.)*+'|"(?:[^"\\\n]|\\.)*+")
    |(?P<number>-?\d++(?:\.\d++)?+(?:e[+-]?\d++)?+)
    |(?P<word>True|False|None)\b)""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(?:x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8}|.)")
_ESCAPES = {"\\\\": "\\", "\\'": "'", '\\"': '"', "\\n": "\n", "\\r": "\r", "\\t": "\t"}
_SURROGATES = range(0xD800, 0xE000)
_WORDS = {"True": "true", "False": "false", "None": "null"}
_CHECKED = re.compile(r"Policy check for tool call \S{1,200} of tool (?P<tool>[\w.:/-]{1,128}?)\.?")


@dataclass(frozen=True, slots=True)
class PrintedCall:
    """The data that is printed after a denial.

    Attributes:
        tool: The tool of the call.
        check: The result of the check, like an entry of `policy_check_history`.
        arguments: The call's arguments: name → value, or `{value, meta}`.
        has_labels: Whether each argument is certainly `{value, meta}`. Otherwise a value of that
            shape may be forged.
    """

    tool: str | None = None
    check: Mapping[str, Any] = field(default_factory=dict)
    arguments: Mapping[str, Any] | None = None
    has_labels: bool = False


def read_printed(text: str) -> PrintedCall:
    """Read the data that is printed after a denial.

    Args:
        text: The whole message of the denial.

    Returns:
        The data; empty if any part of it cannot be read.
    """
    match = _HEADING.search(text)
    if match is None or len(text) - match.start() > MAX_PRINTED:
        return PrintedCall()
    sections: dict[str, Any] = {}
    try:
        while (heading := match["name"]) is not None:
            if heading in sections:
                return PrintedCall()
            sections[heading], position = _literal(text, match.end())
            match = _NEXT.match(text, position)
            if match is None:
                return PrintedCall()
    except (ValueError, RecursionError):
        return PrintedCall()
    call = _call_in(sections)
    labelled = _first_of_type(dict, call.get("kwargs_with_meta"))
    context = _first_of_type(dict, sections.get("Context")) or {}
    name = (_first_of_type(dict, call.get("tool")) or {}).get("name")
    return PrintedCall(
        tool=_first_of_type(str, name),
        check=_first_of_type(dict, sections.get("Checking results")) or {},
        arguments=_first_of_type(dict, context.get("args")) if labelled is None else labelled,
        has_labels=labelled is not None,
    )


def checked_tool(entry: Mapping[str, Any]) -> str | None:
    """The tool that a check names, in a field or in its description.

    Args:
        entry: An entry of `policy_check_history`.
    """
    if named := _first_of_type(str, entry.get("tool"), entry.get("tool_name")):
        return named
    match = _CHECKED.fullmatch(_first_of_type(str, entry.get("description")) or "")
    return None if match is None else match["tool"]


def _call_in(sections: Mapping[str, Any]) -> Mapping[str, Any]:
    """The printed call; empty if there are several."""
    calls = sections.get("Tool calls")
    if isinstance(calls, list) and len(calls) == 1:
        (calls,) = calls
    return _first_of_type(dict, calls) or {}


def _literal(text: str, position: int) -> tuple[Any, int]:
    """Parse the Python literal of plain data at a position. It is translated into JSON.

    Returns:
        The value and its end.

    Raises:
        ValueError: If Python would not print plain data like this.
    """
    parts: list[str] = []
    depth = 0
    while True:
        token = _TOKEN.match(text, position)
        if token is None:
            raise ValueError
        position, mark = token.end(), token["mark"]
        if token["text"] is not None:
            parts.append(json.dumps(_unescaped(token["text"][1:-1])))
        else:
            parts.append(mark or token["number"] or _WORDS[token["word"]])
        depth += (mark in ("{", "[")) - (mark in ("}", "]"))
        if depth > _MAX_DEPTH:
            raise ValueError
        if depth <= 0:
            return loads("".join(parts), unique=True), position


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(_unescaped_character, text) if "\\" in text else text


def _unescaped_character(match: re.Match[str]) -> str:
    escape = match[0]
    if escape in _ESCAPES:
        return _ESCAPES[escape]
    if len(escape) == 2:  # noqa: PLR2004 - an escape that Python does not print
        raise ValueError
    code = int(escape[2:], 16)  # noqa: FURB166 - zeros may come first
    if code in _SURROGATES:  # half a character, which JSON cannot hold
        raise ValueError
    return chr(code)  # raises ValueError beyond Unicode


_LABELLED_KEYS = frozenset({"value", "meta", "value_type"})
# All recorded denials have these words, and hardly any other failure.
_CODE = re.compile(r"polic|den(y|ied)|control.?flow", re.IGNORECASE)
_MESSAGE = re.compile(r"\bpolic(y|ies)\b|control.?flow", re.IGNORECASE)
# Recorded: "Tool call to 'x' is denied by argument checking policies. …", and of older servers
# "Tool call x denied by …"; "Control flow was violated …", "Control flow violation", "… violated
# control flow policies".
_TOOL = re.compile(
    r"\btool call(?: to)?(?: (?P<quote>['\"`]?)(?!(?:is|was|has|denied)\b)"
    r"(?P<tool>[\w.:/-]{1,128})(?P=quote))? (?:is |was |has been )?denied\b"
    r"(?P<policies> by (?:the )?(?:[\w-]+ ){0,4}polic(?:y|ies)\b)?",
    re.IGNORECASE,
)
_BRANCH = re.compile(
    r"\bcontrol[ -]?flow (?:was violated|is violated|violation)\b"
    r"|\bviolat(?:ed|es|ion of)(?: the)? control[ -]?flow\b",
    re.IGNORECASE,
)
_BEGINS = re.compile(r"tool call|control[ -]?flow|violat", re.IGNORECASE)
"""How texts begin at whose beginning `_TOOL` or `_BRANCH` matches."""
# The values of a call, printed after a message.
_TAIL = re.compile(r"\b(?:Context|Tool calls?)\s*:.*", re.DOTALL)
# The prose of a denial ends at a heading, or where data begins in any other form.
_DATA = re.compile(
    r"\b(?:Context|Tool calls?|Checking results?|Arguments|Args|Kwargs)\s*[:=]"
    r"|[{\[]|\b\w+(?:\(|\s*=(?!=))",
    re.IGNORECASE,
)
_MARK = re.compile(r"\b(?:Context|Tool calls?|Checking results?)\s*:", re.IGNORECASE)
_NO_REASON = "No reason is given."
# Beginnings of denials, in small letters and without white space.
LEADS = ("toolcall", "controlflow", '{"status":"failure"')
MAX_BEGINNING: Final = 2_000


def normalized_beginning(text: str) -> str:
    """The beginning of a text in small letters and without white space, to compare with `LEADS`."""
    return "".join(text[:MAX_BEGINNING].split()).lower()


def read_text(text: str, *, whole: bool = False) -> Denial | None:
    """Read a denial from a text.

    Args:
        text: A text of the service, or of a model.
        whole: Whether the denial must be at the beginning: an answer may mention a denial.

    Returns:
        The denial, or `None` if the text has none.
    """
    text = text.strip()
    if whole and not _BEGINS.match(text):  # an answer may be long
        return None
    prose = without_values(text)  # a value of the call may look like a denial
    tool = _TOOL.match(prose) if whole else _TOOL.search(prose)
    # An answer may begin with a denial by a human; a refusal of a model names no call.
    if tool is not None and (tool["policies"] or (tool["tool"] and not whole)):
        name = (tool["tool"] or "").rstrip(".") or None
        denial = Denial(name, reason=_text_before_data(text[tool.end() :]))
        return _with_printed(denial, read_printed(text))
    branch = _BRANCH.match(prose) if whole else _BRANCH.search(prose)
    return None if branch is None else Denial(kind="branch", reason=_text_before_data(prose))


def without_values(text: str) -> str:
    """Remove the values of a call that are printed after a message of the service.

    Args:
        text: The message.

    Returns:
        The text before ` Context:` and ` Tool calls:`. The removed part is in the raw reply, such
        as `error.result`.

    Example:
        ```python
        from langchain_sequrity.wire.denials import without_values

        assert without_values("It failed. Context: {'args': {'pin': 1234}}") == "It failed."
        ```
    """
    return _TAIL.sub("", text).rstrip()


def read_message(message: AIMessage) -> Denial | None:
    """Read a denial from a reply that is not the end of a dual-LLM turn.

    Args:
        message: The reply.

    Returns:
        The denial, or `None` for an answer, a call, or a model's own refusal.
    """
    metadata, text = message.response_metadata, str(message.text)
    denial = next(filter(None, map(read_text, _refusals(message))), None)
    if denial is None:
        # A failed response has the denial as its text (`docs/protocol.md`, Responses).
        denial = read_text(text, whole=metadata.get("status") != "failed")
    checked = read_check(metadata.get(CHECK_KEY))
    return denial if checked is None else _merged(checked, denial)


def refusal_of(message: AIMessage) -> str:
    """The text of a refusal in any format; empty if the message is not a refusal.

    Args:
        message: A message of any chat model.
    """
    return " ".join(dict.fromkeys(_refusals(message)))


def _refusals(message: AIMessage) -> list[str]:
    texts = [message.additional_kwargs.get("refusal")]
    content = message.content if isinstance(message.content, list) else ()
    blocks = [
        block for block in content if isinstance(block, dict) and block.get("type") == "refusal"
    ]
    texts += [block.get("refusal") for block in blocks]
    is_refused = message.response_metadata.get("stop_reason") == "refusal"
    if is_refused:
        details = message.response_metadata.get("stop_details")
        texts.append(details.get("explanation") if isinstance(details, Mapping) else None)
        texts.append(message.text)  # the service documents no other place for the reason
    refusals = [str(text) for text in texts if text]
    return refusals or [_NO_REASON] * (is_refused or bool(blocks))


def _text_before_data(text: str) -> str | None:
    """A text up to the printed data; rules are quoted in backticks."""
    marked = _MARK.search(text)
    end = len(text) if marked is None else marked.start()
    start = 0
    for number, part in enumerate(text[:end].split("`")):
        if number % 2 == 0 and (data := _DATA.search(part)):
            end = start + data.start()
            break
        start += len(part) + 1
    prose = text[:end].strip(" .:,;\n\t-—").removeprefix("(").strip()
    prose = prose.removesuffix(")") if "(" not in prose else prose
    return prose or None


def _with_printed(denial: Denial, printed: PrintedCall) -> Denial:
    """Add the printed data to a denial: the check's reason and strength, and the tool.

    A text and a call that name different tools may be about different calls. Then the denial is
    not soft.
    """
    checked = read_check(printed.check) or Denial()
    is_another = denial.tool is not None and printed.tool not in (None, denial.tool)
    return replace(
        denial,
        tool=denial.tool or printed.tool,
        strength=None if is_another and checked.strength == "soft" else checked.strength,
        reason=checked.reason or denial.reason,
    )


def read_failure(code: str | None, message: str | None, checks: Iterable[Any]) -> Denial | None:
    """Read a denial from a failed dual-LLM turn.

    Args:
        code: The error's code.
        message: Its message.
        checks: The policy check history.

    Returns:
        The denial, or `None` if the turn failed for another reason.
    """
    checked = next(filter(None, map(read_check, reversed([*checks]))), None)
    stated = read_text(message or "")
    if checked is not None and (stated is None or stated.kind == "policy"):
        return _combined(checked, stated)
    text = without_values(message or "")
    if stated is None and not (_CODE.search(code or "") or _MESSAGE.search(text)):
        return None
    return stated if stated is not None else Denial(reason=_text_before_data(text))


def _combined(checked: Denial, stated: Denial | None) -> Denial:
    """Combine a check and a message. The denial is soft only if neither contradicts it."""
    merged = _merged(checked, stated)
    if stated is not None and stated.strength == "hard":
        return replace(merged, strength="hard")
    is_another = stated is not None and stated.tool and checked.tool not in (None, stated.tool)
    return replace(merged, strength=None) if is_another and merged.strength == "soft" else merged


def _merged(first: Denial, second: Denial | None) -> Denial:
    """The first denial, with unreported fields from the second."""
    if second is None:
        return first
    missing = {
        attribute.name: getattr(second, attribute.name)
        for attribute in fields(Denial)
        if getattr(first, attribute.name) is None
        # Without its author's reason, the message gives the rule as the reason.
        if attribute.name != "reason" or first.rule is None
    }
    return replace(first, **missing)


def read_check(entry: Any) -> Denial | None:
    """Read one policy check.

    Args:
        entry: An entry of `policy_check_history`, or anything.

    Returns:
        The denial, or `None` if the entry is not a readable denial, or if a person has decided
        about it.
    """
    if not isinstance(entry, Mapping) or entry.get("decision") is not None:
        return None
    reasons = reasons_in(entry, "denied", "denial_reasons")
    verdicts = {str(entry.get(name) or "") for name in ("verdict", "final_verdict")}
    if not (reasons or any(verdict.endswith("denied") for verdict in verdicts)):
        return None
    first: Mapping[str, Any] = reasons[0] if reasons else {}
    arguments, labels = read_call(first.get("arguments"), entry.get("arguments"))
    return Denial(
        tool=_first_of_type(str, first.get("tool"), first.get("tool_name"), checked_tool(entry)),
        kind="content" if "content_denied" in verdicts else "policy",
        strength=_strength(verdicts, reasons),
        certain=_first_of_type(bool, entry.get("certain")),
        rule=_first_of_type(str, first.get("rule")),
        line=_first_of_type(int, first.get("policy_line")),
        column=_first_of_type(int, first.get("policy_column")),
        reason=_first_of_type(str, first.get("reason"), first.get("checker_description")),
        doubt=_first_of_type(str, first.get("in_doubt_because")),
        policy=_first_of_type(str, first.get("policy")),
        arguments=arguments,
        labels=labels,
    )


def reasons_in(entry: Mapping[str, Any], *names: str) -> list[Mapping[str, Any]]:
    """The rules that decided, from the first of these lists in a policy check that is not empty."""
    lists = [entry.get(name) for name in names]
    reasons: list[Any] = next((value for value in lists if isinstance(value, list) and value), [])
    return [item if isinstance(item, Mapping) else {"reason": str(item)} for item in reasons]


def _strength(
    verdicts: set[str], reasons: Iterable[Mapping[str, Any]]
) -> Literal["soft", "hard"] | None:
    """The strength of a denial: soft only if the verdict and every reason are soft."""
    levels = [reason.get("enforcement_level") for reason in reasons]
    if "hard_denied" in verdicts or "content_denied" in verdicts or "hard" in levels:
        return "hard"
    is_soft = "soft_denied" in verdicts and 0 < levels.count("soft") == len(levels)
    return "soft" if is_soft else None


def _first_of_type(type_: type[T], *values: Any) -> T | None:
    """The first value of this type that is not an empty text."""
    return next((value for value in values if type(value) is type_ and value != ""), None)


def read_call(arguments: Any, metas: Any) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Read values and labels of a call's arguments.

    Args:
        arguments: The arguments: name → value, or `{value, meta}`.
        metas: Labels in a separate field: name → meta.

    Returns:
        The values and the labels, each by name, as far as they are reported.
    """
    values: dict[str, Any] | None = None
    labels: dict[str, Any] = {}
    if isinstance(arguments, Mapping):
        values = {}
        for name, argument in arguments.items():
            meta = _meta_of(argument)
            values[str(name)] = argument if meta is None else argument["value"]
            if meta is not None and (read := read_labels(meta)) is not None:
                labels[str(name)] = read
    if isinstance(metas, Mapping) and not labels:
        pairs = ((str(name), read_labels(meta)) for name, meta in metas.items())
        labels = {name: meta for name, meta in pairs if meta is not None}
    return values, labels or ({} if values == {} else None)


def with_labelled_call(denial: Denial, message: str | None) -> tuple[Denial, bool] | None:
    """Add the arguments of the denied call and their labels, from its check or from its message.

    Args:
        denial: The denial.
        message: The message of the failed turn.

    Returns:
        The denial, and whether a value of the call could imitate the labels. `None` if the service
        does not report all of them.
    """
    if _is_labelled(denial.arguments, denial.labels):
        return denial, False
    printed = read_printed(message or "")
    arguments, labels = read_call(printed.arguments, None)
    if arguments is None or labels is None or not _is_labelled(arguments, labels):
        return None
    return denial.with_call(arguments, labels), not printed.has_labels


def _is_labelled(arguments: Any, labels: Any) -> bool:
    return arguments is not None and arguments.keys() == (labels or {}).keys()


def _meta_of(argument: Any) -> Any:
    """The labels of a printed argument `{value, meta, …}`; `None` for a value without labels.

    The newest recorded text has a third key, `value_type`. An object of the tool's own is a value.
    """
    if not isinstance(argument, Mapping) or not argument.keys() >= {"value", "meta"}:
        return None
    is_known = argument.keys() <= _LABELLED_KEYS or read_labels(argument["meta"]) is not None
    return argument["meta"] if is_known else None


def read_labels(meta: Any) -> dict[str, list[str]] | None:
    """Read labels in the protocol's form; `None` for anything else."""
    try:
        return Labels.from_wire(meta, unknown="ignore").to_wire()
    except BadLabels:
        return None
