"""The access of prebuilt nodes and routers of LangGraph and LangChain.

They pass the state on to functions of their own, so their source does not show the access. This
module has it, as of langgraph-prebuilt 1.1 and langchain 1.4. They are recognized by name, so
langchain need not be installed. As with all nodes, their writes are checked when they run.
"""

import functools
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from types import FunctionType, MethodType
from typing import Any, get_origin, get_type_hints

from langgraph.types import Command

from langchain_sequrity import _compat
from langchain_sequrity.graph.analysis.source import (
    ANY_RETURN,
    ReturnSummary,
    either,
    fields_read,
    functions_of,
    hints_of,
    may_reference,
    node_returns,
    source_of,
    union_of,
)

_AGENTS = "langchain.agents.factory"
_REACT = "langgraph.prebuilt.chat_agent_executor"
_TOOL_NODE = "langgraph.prebuilt.tool_node"
_MIDDLEWARE = "langchain.agents.middleware."
_MODEL_NODES = ("model_node", "amodel_node")
_ANSWER = "structured_response"
_REACT_FIELDS = frozenset(
    ("messages", "llm_input_messages", "remaining_steps", "is_last_step", _ANSWER)
)
_TRUSTED_MIDDLEWARE = frozenset(
    _MIDDLEWARE + name
    for name in (
        "context_editing", "human_in_the_loop", "model_call_limit", "model_fallback", "model_retry",
        "pii", "summarization", "todo", "tool_call_limit", "tool_emulator", "tool_retry",
        "tool_selection",
    )
)  # fmt: skip
"""Middleware that only reads and writes the fields of its own schema."""

_TODO_MODULE = _MIDDLEWARE + "todo"
"""Module of the to-do tool, which reads nothing."""

_TODO_RETURNS = ReturnSummary(keys=frozenset({"messages", "todos"}))


@dataclass(frozen=True, slots=True)
class PrebuiltAccess:
    """The access of a prebuilt node or router.

    Attributes:
        reads: Keys of the state that it reads; `None` for all.
        returns: What it may return.
    """

    reads: frozenset[str] | None
    returns: ReturnSummary


def prebuilt_access(
    runnable: Any, fields: Collection[str], *, is_dict: bool
) -> PrebuiltAccess | None:
    """The access of a runnable; `None` if it is not prebuilt.

    Args:
        runnable: A node or a router.
        fields: Fields of the state that it gets.
        is_dict: Whether its state is a dict, not an object.
    """
    if _is_from(type(runnable), _TOOL_NODE, "ToolNode"):
        return _tool_node_access(runnable, fields, is_dict=is_dict)
    accesses = [_function_access(f, fields) for f in functions_of(runnable)]
    certain = [access for access in accesses if access is not None]
    if not certain or len(certain) < len(accesses):
        return None
    reads = union_of(access.reads for access in certain)
    return PrebuiltAccess(reads, either(access.returns for access in certain))


def response_formats(runnable: Any) -> Mapping[str, Any]:
    """State field → type of an agent's structured response.

    The agent's own schema leaves the type of that field open.
    """
    for function in functions_of(runnable):
        variables = _closure_variables(function)
        schema = {
            _AGENTS: variables.get("initial_response_format"),
            _REACT: variables.get("response_format"),
        }.get(function.__module__)
        schema = schema[-1] if isinstance(schema, tuple) else schema
        if schema is not None:
            # A strategy has a schema. In a pydantic class, `schema` is a method.
            is_class = inspect.isclass(schema)
            return {_ANSWER: schema if is_class else getattr(schema, "schema", schema)}
    return {}


def _function_access(function: Any, fields: Collection[str]) -> PrebuiltAccess | None:
    has_keywords = isinstance(function, functools.partial)
    if _is_from(function.func if has_keywords else function, _TOOL_NODE, "tools_condition"):
        keywords = function.keywords if has_keywords else {}
        return PrebuiltAccess(frozenset({keywords.get("messages_key", "messages")}), ANY_RETURN)
    if isinstance(function, MethodType):
        keys = _fields_of_middleware(function.__self__)
        return None if keys is None else PrebuiltAccess(keys, ReturnSummary(keys=keys))
    if getattr(function, "__module__", None) == _REACT:
        reads = frozenset(fields) if set(fields) <= _REACT_FIELDS else None
        return PrebuiltAccess(reads, ANY_RETURN)
    if any(_is_from(function, _AGENTS, f"create_agent.<locals>.{name}") for name in _MODEL_NODES):
        return _model_node_access(_closure_variables(function))
    return None


def _is_from(obj: Any, module: str, name: str) -> bool:
    """Whether something is the class or function of that name."""
    origin = getattr(obj, "__module__", None), getattr(obj, "__qualname__", None)
    return origin == (module, name)


def _closure_variables(function: Any) -> Mapping[str, Any]:
    """The variables in a function's closure, as far as they are set."""
    if not inspect.isfunction(function):
        return {}
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    return {name: _compat.cell_value(cell) for name, cell in cells}


# Agents and their middleware.


def _model_node_access(variables: Mapping[str, Any]) -> PrebuiltAccess:
    wrappers = [variables.get("wrap_model_call_handler"), variables.get("awrap_model_call_handler")]
    wrapper_fields = _fields_of_wrappers(w for w in wrappers if w is not None)
    if wrapper_fields is None:
        return PrebuiltAccess(None, ANY_RETURN)
    keys = {"messages"} if variables["initial_response_format"] is None else {"messages", _ANSWER}
    return PrebuiltAccess(
        frozenset({"messages"}) | wrapper_fields,
        ReturnSummary(keys=frozenset(keys) | wrapper_fields, definite=frozenset({"messages"})),
    )


def _fields_of_wrappers(wrappers: Iterable[Any]) -> frozenset[str] | None:
    """Fields of the middleware around a call; `None` if one middleware is unknown."""
    return union_of(map(_fields_of_wrapper, wrappers))


def _fields_of_wrapper(wrapper: Any) -> frozenset[str] | None:
    wrapper = inspect.unwrap(wrapper)
    if isinstance(wrapper, MethodType):
        return _fields_of_middleware(wrapper.__self__)
    if isinstance(wrapper, FunctionType) and wrapper.__module__ == _AGENTS:
        return _fields_of_wrappers(_closure_variables(wrapper).values())
    return None


def _fields_of_middleware(middleware: Any) -> frozenset[str] | None:
    """The fields of a middleware of LangChain; `None` if it passes the state to user code."""
    if type(middleware).__module__ not in _TRUSTED_MIDDLEWARE:
        return None
    reviews = getattr(middleware, "interrupt_on", {}).values()
    if any(callable(review.get(key)) for review in reviews for key in ("when", "description")):
        return None  # they get the state
    return frozenset(get_type_hints(middleware.state_schema)) - {_ANSWER}


# Tools.


def _tool_node_access(node: Any, fields: Collection[str], *, is_dict: bool) -> PrebuiltAccess:
    key, tools, wrappers = _compat.parts_of_tool_node(node)
    wrapper_fields = _fields_of_wrappers(wrappers)
    if wrapper_fields is None:
        return PrebuiltAccess(None, ANY_RETURN)
    reads: list[frozenset[str] | None] = [frozenset({key}), wrapper_fields]
    returns = ReturnSummary(keys=frozenset({key}))
    for tool, states, runtime in tools:
        functions = _functions_of_tool(tool)
        if all(getattr(f, "__module__", None) == _TODO_MODULE for f in functions):
            returns = returns.either(_TODO_RETURNS)
            continue
        for parameter, field in states.items():
            if field is None and any(_is_validated(f, parameter) for f in functions):
                reads.append(frozenset(fields))
            elif field is None:
                reads.append(_reads_of_tools(functions, parameter, fields, is_dict=is_dict))
            else:
                reads.append(frozenset({field}))
        if runtime is not None:
            reads.append(
                _reads_of_tools(functions, runtime, fields, is_dict=is_dict, attribute="state")
            )
        for function in functions:
            returns = returns.together(_tool_returns(function)).either(returns)
    return PrebuiltAccess(union_of(reads), returns)


def _functions_of_tool(tool: Any) -> list[Callable[..., Any]]:
    """The functions that a tool runs."""
    functions = [getattr(tool, name, None) for name in ("func", "coroutine")]
    return [f for f in functions if f is not None] or [tool._run, tool._arun]  # noqa: SLF001 - which subclasses of BaseTool define


def _is_validated(function: Any, parameter: str) -> bool:
    """Whether pydantic validates a tool's parameter, which reads all fields of its schema."""
    hint = hints_of(getattr(function, "__func__", function)).get(parameter, Any)
    return (get_origin(hint) or hint) not in (Any, object, dict, Mapping)


def _reads_of_tools(
    functions: Iterable[Any],
    parameter: str,
    fields: Collection[str],
    *,
    is_dict: bool,
    attribute: str | None = None,
) -> frozenset[str] | None:
    """What tools read of a state, or of a runtime with the state."""
    sources = [source_of(f, parameter) for f in functions]
    return union_of(
        None if s is None else fields_read(s, fields, is_dict=is_dict, attribute=attribute)
        for s in sources
    )


def _tool_returns(function: Any) -> ReturnSummary:
    """The returns of a tool besides its message: nothing, unless it may return a `Command`."""
    if not _may_command(function):
        return ReturnSummary()
    source = source_of(function)
    return ANY_RETURN if source is None else node_returns(source)


def _may_command(function: Any) -> bool:
    """Whether a tool's function may return a `Command`.

    It does not if its annotation is something else, or if it cannot see the class. A `Command` from
    elsewhere is an error when it runs, because it writes fields that the analysis did not find.
    """
    function = getattr(function, "__func__", function)
    if not inspect.isfunction(function):
        return True
    hint = hints_of(function).get("return", Any)
    if inspect.isclass(hint) and hint is not Any and not issubclass(Command, hint):
        return False
    wrapped = getattr(function, "__wrapped__", None)
    closure = _closure_variables(function).values()
    is_visible = any(v is Command for v in closure) or may_reference(function, Command)
    return is_visible or (wrapped is not None and _may_command(wrapped))
