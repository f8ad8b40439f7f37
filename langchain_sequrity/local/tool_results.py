"""The text of a tool's result: its value, the labels it brings, and whether it is an error.

The text is data that a mail or a web page may have written. A wrapper with labels is read at the
top level only, and names that belong to the service are refused in it (`docs/security.md`, rule 1).
"""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, cast

import regex
from langchain_core.messages import ToolMessage

from langchain_sequrity.errors import UsageError
from langchain_sequrity.headers import FsmConfig
from langchain_sequrity.labels import BadLabels, Combine, Labels, make_labels
from langchain_sequrity.local import limits
from langchain_sequrity.local.conversation import text_of
from langchain_sequrity.local.policy_gate import Brought
from langchain_sequrity.patterns import Budget, Pattern
from langchain_sequrity.strict_json import TooDeep, dumps, loads, nests_deeper

MARK = "is_sequrity_var"
_COMBINES = ("merge", "replace", "ignore")
_MATCH_SECONDS = 0.5
_REMEMBERED = 64
_DEFAULT_ERROR = regex.compile(r"(?i)\A\W*(error|exception|traceback|failed|failure)\b")
_CODEX_HEAD = regex.compile(
    r"\A(?:Chunk ID:[^\n]*\n)?(?:Wall time:[^\n]*\n)?"
    r"(?:Process exited with code|Exit code:?) (-?\d{1,10})\n(?:[A-Z][^\n:]*:[^\n]*\n)*?Output:\n"
)
AskWhetherError = Callable[[str], bool]


class BadResult(Exception):
    """A result that may not be used; the text says why."""


@dataclass(frozen=True, slots=True)
class ReadResult:
    """A result that was read.

    Attributes:
        brought: The value and the labels that came with it.
        failure: The text of an error, if it is one.
    """

    brought: Brought
    failure: str | None = None


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
        fsm: The section of `X-Config` that says how results are read.
        has_output_schema: Whether the tool declares a schema of its results.
        may_replace: Whether its results may put their labels in the place of the arguments'.
        is_error: Asks a model whether a text is an error, for `detect_tool_errors: llm`.

    Returns:
        What it says.

    Raises:
        BadResult: If it is nested too deeply, or a wrapper that is malformed, holds reserved
            names, or replaces labels without leave.
    """
    text = text_of(message)
    texts, is_all = _texts(message)
    parsed = _checked(text)
    parts = [parsed] if len(texts) == 1 else [*map(_checked, texts)]
    if _is_wrapper(parsed) and is_all:
        brought = _unwrapped(parsed, may_replace=may_replace)
    elif any(map(_is_wrapper, [parsed, *parts])):
        msg = "It is a wrapper with labels beside texts, images or files, which belong into it."
        raise BadResult(msg)
    elif is_all:
        is_text = fsm.strict_tool_result_parsing and not has_output_schema
        both = zip(texts, parts, strict=True)
        values = [one if is_text or value is _NO_JSON else value for one, value in both]
        brought = Brought(values if len(values) > 1 else values[0])
    else:
        brought = Brought(_blocks(message))
    text = "\n".join(texts)
    came = brought.value
    if fsm.tool_result_transform == "codex":
        brought = replace(brought, value=_without_codex_head(came))
    # Whether it is an error is said by what the tool returned, not by what is around it.
    if brought.labels is not None or brought.value is not came:
        text = brought.value if isinstance(brought.value, str) else dumps(brought.value)
    failed = _is_error(message, text, fsm, is_error)
    return ReadResult(brought, text if failed else None)


_NO_JSON: Any = object()
_TOO_DEEP: Any = object()


def _checked(text: str) -> Any:
    """What a text says as JSON, if it does; raises `BadResult` for what must not become a text."""
    parsed = _parsed(text)
    if parsed is _TOO_DEEP or nests_deeper(parsed, limits.DEPTH):
        # As text it would lose the labels of a wrapper around it.
        msg = f"It is JSON that is nested deeper than {limits.DEPTH} levels."
        raise BadResult(msg)
    if parsed is _NO_JSON and _is_loosely_wrapped(text):
        msg = (
            "It is a wrapper with labels, but no sound JSON: NaN, infinities, numbers beyond all "
            "size and a byte order mark have no place in it."
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
        return _NO_JSON


def _is_loosely_wrapped(text: str) -> bool:
    """Whether what is no JSON is a wrapper to a reader that is less strict."""
    try:
        value = json.loads(text.removeprefix("\ufeff"), parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return False
    return _is_wrapper(value)


def _texts(message: ToolMessage) -> tuple[list[str], bool]:
    """The texts of a result, and whether there is nothing else."""
    content = message.content
    if isinstance(content, str):
        return [text_of(message)], True
    blocks = [block for block in content if _is_text(block)]
    texts = [text_of(message.model_copy(update={"content": [block]})) for block in blocks]
    return texts or [""], len(content) == len(blocks)


def _blocks(message: ToolMessage) -> list[Any]:
    """The blocks of a result in LangChain's own form, the same from every format."""
    blocks: list[Any] = [*message.content_blocks]
    # LangChain numbers some of them at random.
    return [{key: one for key, one in block.items() if key != "id"} for block in blocks]


def _is_text(block: Any) -> bool:
    return isinstance(block, str) or block.get("type") == "text"


def _unwrapped(wrapper: Mapping[str, Any], *, may_replace: bool) -> Brought:
    combine = wrapper.get("combine_meta", "merge")
    try:
        value, labels = wrapper["value"], Labels.from_wire(wrapper["meta"])
    except (KeyError, BadLabels):
        msg = (
            "It is a wrapper with labels, but lacks `value`, or `meta` with exactly three lists "
            "of names."
        )
        raise BadResult(msg) from None
    if combine not in _COMBINES:
        msg = "Its `combine_meta` is none of `merge`, `replace`, `ignore`."
        raise BadResult(msg)
    if combine == "replace" and not may_replace:
        msg = (
            "It replaces the labels of the call's arguments, which this server lets named tools "
            "do only: `LocalServer(replacing_tools=[…])`."
        )
        raise BadResult(msg)
    try:
        make_labels(labels.producers, labels.consumers, labels.tags)
    except UsageError:
        msg = "Its labels hold names that belong to the service (`*`, `__…`), or that are no names."
        raise BadResult(msg) from None
    return Brought(value, labels, cast("Combine", combine))


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
    looked_at = text if limit is None else text[:limit]
    if fsm.detect_tool_errors == "llm":
        return ask is not None and ask(looked_at)
    if fsm.detect_tool_error_regex_pattern is None:
        return looks_like_error(looked_at)
    # In doubt it is an error, and the program decides what to do.
    pattern = _pattern(fsm.detect_tool_error_regex_pattern)
    return pattern.asked(looked_at, Budget(_MATCH_SECONDS)) is not False


_pattern = lru_cache(maxsize=_REMEMBERED)(Pattern)


def looks_like_error(text: str) -> bool:
    """Whether a text begins as errors do; the pattern walks over it at most once."""
    return _DEFAULT_ERROR.match(text) is not None


def output_schemas(tools: Collection[Mapping[str, Any]]) -> frozenset[str]:
    """Names of the tools that declare a schema of their results."""
    return frozenset(
        tool["function"]["name"] for tool in tools if tool["function"].get("output_schema")
    )
