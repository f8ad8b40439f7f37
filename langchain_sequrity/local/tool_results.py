"""Reading tool results: the value, its labels, whether it is an error, whether the tool ran.

The text may come from a mail or a web page. So a wrapper with labels is read at the top level only,
and reserved names of the service are refused in it (`docs/security.md`, rule 1).
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, cast, get_args

import regex
from langchain_core.messages import ToolMessage

from langchain_sequrity.errors import UsageError
from langchain_sequrity.headers import FsmConfig
from langchain_sequrity.labels import (
    FIELDS_KEY,
    BadLabels,
    Combine,
    FieldLabels,
    Labels,
    make_labels,
    read_fields,
)
from langchain_sequrity.local import limits
from langchain_sequrity.local.conversation import text_of
from langchain_sequrity.owned_cache import owned_cache
from langchain_sequrity.patterns import Pattern, TimeBudget
from langchain_sequrity.sqrt.context import looks_like_error
from langchain_sequrity.sqrt.gate import ToolReturn
from langchain_sequrity.strict_json import TooDeep, as_text, loads, nests_deeper
from langchain_sequrity.wire.refused_calls import refusal_sentence
from langchain_sequrity.wire.tool_results import MARK

_MATCH_SECONDS = 0.5
_REMEMBERED = 64
_CODEX_HEAD = regex.compile(
    r"\A(?:Chunk ID:[^\n]*\n)?(?:Wall time:[^\n]*\n)?"
    r"(?:Process exited with code|Exit code:?) (-?\d{1,10})\n(?:[A-Z][^\n:]*:[^\n]*\n)*?Output:\n"
)
_REFUSALS = regex.compile(
    r"Tool call limit exceeded\. Do not (?:call '[^']*' again|make additional tool calls)\."
    r"|Execution stopped before this tool call could run because .*"
    r"|The tool call `[^`]*` was blocked because .*\. The tool was not executed\."
    r"|User rejected the tool call for `[^`]*` with reason: .*"
    r"|User rejected the tool call for `[^`]*` with id .* The tool was not executed\. .*",
    regex.DOTALL,
)
"""What LangChain's `ToolCallLimitMiddleware`, `AutoModeMiddleware` and `HumanInTheLoopMiddleware`
write. Only the last one also marks its messages, and clients may lose the mark."""
AskWhetherError = Callable[[str], bool]
Refusal = Literal["certain", "stated"]
"""How it is known that a call was refused: from a text that names the call's id, which data cannot
know, or only from a text that an error of the tool may contain, too."""


class BadResult(Exception):
    """A result that cannot be used; the text says why."""


@dataclass(frozen=True, slots=True)
class ReadResult:
    """A tool result.

    Attributes:
        returned: The value, and its labels if it is wrapped.
        failure: The text of the error, if the tool failed and the program handles it as an error.
        refusal: Whether the call was refused instead, and how that is known.
    """

    returned: ToolReturn
    failure: str | None = None
    refusal: Refusal | None = None


def read_result(
    message: ToolMessage,
    *,
    fsm: FsmConfig,
    has_output_schema: bool = False,
    may_replace: bool = False,
    is_error: AskWhetherError | None = None,
) -> ReadResult:
    """Read the result of a tool.

    Args:
        message: The tool message.
        fsm: The section of `X-Config` on tool results.
        has_output_schema: Whether the tool declares a schema of its results.
        may_replace: Whether its results may replace the labels of the arguments.
        is_error: Asks a model whether a text is an error, for `detect_tool_errors: llm`.

    Returns:
        The value, labels and error.

    Raises:
        BadResult: If it is nested too deeply, or a wrapper that is malformed, contains reserved
            names, or replaces labels without permission.
    """
    text = text_of(message)
    sentence = refusal_sentence(message.tool_call_id)
    if message.status == "error" and text.startswith(sentence):
        reason = text.removeprefix(sentence)
        failure = None if fsm.detect_tool_errors == "none" else reason
        return ReadResult(ToolReturn(reason, is_error=True), failure, "certain")
    texts, is_all = _texts(message)
    parsed = _parse_strictly(text)
    parts = [parsed] if len(texts) == 1 else [*map(_parse_strictly, texts)]
    if _is_wrapper(parsed) and is_all:
        returned = _unwrapped(parsed, may_replace=may_replace)
    elif any(map(_is_wrapper, [parsed, *parts])):
        msg = "It has content besides a wrapper with labels. Put all content into the wrapper."
        raise BadResult(msg)
    elif is_all:
        is_text = fsm.strict_tool_result_parsing and not has_output_schema
        pairs = zip(texts, parts, strict=True)
        values = [text if is_text or value is _NOT_JSON else value for text, value in pairs]
        returned = ToolReturn(values if len(values) > 1 else values[0])
    else:
        returned = ToolReturn(_blocks(message))
    text = "\n".join(texts)
    original = returned.value
    if fsm.tool_result_transform == "codex":
        returned = replace(returned, value=_without_codex_head(original))
    # The tool's own value decides whether it is an error, not the wrapper around it.
    if returned.labels is not None or returned.value is not original:
        text = as_text(returned.value)
    failed = _is_error(message, text, fsm, is_error)
    if failed or message.status == "error":
        returned = replace(returned, is_error=True)
    is_refusal = message.status == "error" and _REFUSALS.fullmatch(text)
    return ReadResult(returned, text if failed else None, "stated" if is_refusal else None)


_NOT_JSON: Any = object()
_TOO_DEEP: Any = object()


def _parse_strictly(text: str) -> Any:
    """The JSON value of a text, or `_NOT_JSON`; raises `BadResult` for unacceptable JSON."""
    parsed = _parsed(text)
    if parsed is _TOO_DEEP or nests_deeper(parsed, limits.DEPTH):
        # Read as plain text, a wrapper would lose its labels.
        msg = f"It is JSON that is nested deeper than {limits.DEPTH} levels."
        raise BadResult(msg)
    if parsed is _NOT_JSON and _is_loosely_wrapped(text):
        msg = (
            "It is a wrapper with labels, but not strict JSON. Remove NaN, infinities, numbers "
            "that are too large, and a byte order mark."
        )
        raise BadResult(msg)
    return parsed


def _is_wrapper(parsed: Any) -> bool:
    return isinstance(parsed, dict) and parsed.get(MARK) is True


def _parsed(text: str) -> Any:
    try:
        return loads(text)
    except TooDeep:
        return _TOO_DEEP
    except ValueError:
        return _NOT_JSON


def _is_loosely_wrapped(text: str) -> bool:
    """Whether a less strict reader would find a wrapper in invalid JSON."""
    try:
        value = json.loads(text.removeprefix("\ufeff"), parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return False
    return _is_wrapper(value)


def _texts(message: ToolMessage) -> tuple[list[str], bool]:
    """The texts of a result, and whether it has nothing else."""
    content = message.content
    if isinstance(content, str):
        return [text_of(message)], True
    blocks = [block for block in content if _is_text(block)]
    texts = [text_of(message.model_copy(update={"content": [block]})) for block in blocks]
    return texts or [""], len(content) == len(blocks)


def _blocks(message: ToolMessage) -> list[Any]:
    """The blocks of a result in LangChain's own form, the same from every format."""
    # LangChain gives some of them random ids.
    blocks = message.content_blocks
    return [{key: value for key, value in block.items() if key != "id"} for block in blocks]


def _is_text(block: Any) -> bool:
    return isinstance(block, str) or block.get("type") == "text"


def _unwrapped(wrapper: Mapping[str, Any], *, may_replace: bool) -> ToolReturn:
    combine = wrapper.get("combine_meta", "merge")
    try:
        value, labels = wrapper["value"], Labels.from_wire(wrapper["meta"])
        if FIELDS_KEY in wrapper:
            labels = _fields_in(wrapper, labels)
    except (KeyError, BadLabels):
        msg = (
            "It is a wrapper with labels, but has no `value`, or no `meta` with exactly three "
            "lists of names."
        )
        raise BadResult(msg) from None
    if combine not in get_args(Combine):
        msg = "Its `combine_meta` must be `merge`, `replace` or `ignore`."
        raise BadResult(msg)
    if combine == "replace" and not may_replace:
        msg = (
            "It replaces the labels of the call's arguments. This server allows that only for "
            "tools in `LocalServer(replacing_tools=[…])`."
        )
        raise BadResult(msg)
    try:
        for part in _parts(labels):
            make_labels(part.producers, part.consumers, part.tags)
    except UsageError:
        msg = "Its labels contain invalid names, or names that are reserved (`*`, `__…`)."
        raise BadResult(msg) from None
    return ToolReturn(value, labels, cast("Combine", combine))


def _parts(labels: Labels) -> list[Labels]:
    if not isinstance(labels, FieldLabels):
        return [labels]
    return [labels.rest, *(field_labels for _, field_labels in labels.fields)]


def _fields_in(wrapper: Mapping[str, Any], whole: Labels) -> Labels:
    """The labels of fields in a wrapper, whose `meta` has to be the join of all of them."""
    labels = read_fields(wrapper[FIELDS_KEY])
    if labels.to_wire() != whole.to_wire():
        raise BadLabels
    return labels


def _without_codex_head(value: Any) -> Any:
    """Keep exit code and output of the Codex CLI (`docs/local-server.md`)."""
    parsed = _parsed(value) if isinstance(value, str) else value
    if isinstance(parsed, dict) and "output" in parsed and isinstance(parsed.get("metadata"), dict):
        return {"exit_code": parsed["metadata"].get("exit_code"), "output": parsed["output"]}
    match = _CODEX_HEAD.match(value) if isinstance(value, str) else None
    if match is None:
        return value
    return {"exit_code": int(match[1]), "output": value[match.end() :]}


# Errors


def _is_error(message: ToolMessage, text: str, fsm: FsmConfig, ask: AskWhetherError | None) -> bool:
    if message.status == "error" and fsm.detect_tool_errors != "none":
        return True
    if fsm.detect_tool_errors not in {"regex", "llm"}:
        return False
    limit = fsm.detect_tool_error_max_result_length
    excerpt = text if limit is None else text[:limit]
    if fsm.detect_tool_errors == "llm":
        return ask is not None and ask(excerpt)
    if fsm.detect_tool_error_regex_pattern is None:
        return looks_like_error(excerpt)
    # In doubt it is an error, and the program can handle it.
    pattern = _pattern(fsm.detect_tool_error_regex_pattern)
    return pattern.finds_within(excerpt, TimeBudget(_MATCH_SECONDS)) is not False


_pattern = owned_cache(maxsize=_REMEMBERED)(Pattern)
