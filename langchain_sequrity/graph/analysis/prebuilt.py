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
    ANYTHING,
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
_TRUSTED = frozenset(
    _MIDDLEWARE + name
    for name in (
        "context_editing", "human_in_the_loop", "model_call_limit", "model_fallback", "model_retry",
        "pii", "summarization", "todo", "tool_call_limit", "tool_emulator", "tool_retry",
        "tool_selection",
    )
)  # fmt: skip
"""Middleware that only reads and writes the fields of its own schema."""

_TODO = (_MIDDLEWARE + "todo", ReturnSummary(keys=frozenset({"messages", "todos"})))
"""Module of the to-do tool, which reads nothing, and its returns."""


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
    functions = functions_of(runnable)
    found = [_function_access(one, fields) for one in functions]
    if not found or None in found:
        return None
    ones = [one for one in found if one is not None]
    return PrebuiltAccess(union_of(one.reads for one in ones), either(one.returns for one in ones))


def response_formats(runnable: Any) -> Mapping[str, Any]:
    """State field → type of an agent's structured response.

    The agent's own schema leaves the type of that field open.
    """
    for function in functions_of(runnable):
        held = _closure_variables(function)
        told = {
            _AGENTS: held.get("initial_response_format"),
            _REACT: held.get("response_format"),
        }.get(function.__module__)
        told = told[-1] if isinstance(told, tuple) else told
        if told is not None:
            # A strategy has a schema. In a pydantic class, `schema` is a method.
            return {_ANSWER: told if inspect.isclass(told) else getattr(told, "schema", told)}
    return {}


def _function_access(function: Any, fields: Collection[str]) -> PrebuiltAccess | None:
    if isinstance(function, functools.partial) and _is_from(
        function.func, _TOOL_NODE, "tools_condition"
    ):
        key = function.keywords.get("messages_key", "messages")
        return PrebuiltAccess(frozenset({key}), ANYTHING)
    if _is_from(function, _TOOL_NODE, "tools_condition"):
        return PrebuiltAccess(frozenset({"messages"}), ANYTHING)
    if isinstance(function, MethodType):
        known = _fields_of_middleware(function.__self__)
        return None if known is None else PrebuiltAccess(known, ReturnSummary(keys=known))
    if getattr(function, "__module__", None) == _REACT:
        return PrebuiltAccess(frozenset(fields) if set(fields) <= _REACT_FIELDS else None, ANYTHING)
    if any(_is_from(function, _AGENTS, f"create_agent.<locals>.{name}") for name in _MODEL_NODES):
        return _model_node_access(_closure_variables(function))
    return None


def _is_from(thing: Any, module: str, name: str) -> bool:
    """Whether something is the class or function of that name."""
    found = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    return found == (module, name)


def _closure_variables(function: Any) -> Mapping[str, Any]:
    """The variables in a function's closure, as far as they are set."""
    if not inspect.isfunction(function):
        return {}
    held = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    return {name: _compat.cell_value(cell) for name, cell in held}


# Agents and their middleware.


def _model_node_access(held: Mapping[str, Any]) -> PrebuiltAccess:
    wrappers = [held.get("wrap_model_call_handler"), held.get("awrap_model_call_handler")]
    around = _fields_of_wrappers(one for one in wrappers if one is not None)
    if around is None:
        return PrebuiltAccess(None, ANYTHING)
    said = {"messages"} if held["initial_response_format"] is None else {"messages", _ANSWER}
    return PrebuiltAccess(
        frozenset({"messages"}) | around,
        ReturnSummary(keys=frozenset(said) | around, sure=frozenset({"messages"})),
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
    if type(middleware).__module__ not in _TRUSTED:
        return None
    asks = getattr(middleware, "interrupt_on", {}).values()
    if any(callable(one.get(key)) for one in asks for key in ("when", "description")):
        return None  # they get the state
    return frozenset(get_type_hints(middleware.state_schema)) - {_ANSWER}


# Tools.


def _tool_node_access(node: Any, fields: Collection[str], *, is_dict: bool) -> PrebuiltAccess:
    key, tools, wrappers = _compat.parts_of_tool_node(node)
    around = _fields_of_wrappers(wrappers)
    if around is None:
        return PrebuiltAccess(None, ANYTHING)
    reads: list[frozenset[str] | None] = [frozenset({key}), around]
    returns = ReturnSummary(keys=frozenset({key}))
    for tool, states, runtime in tools:
        functions = _functions_of_tool(tool)
        if all(getattr(one, "__module__", None) == _TODO[0] for one in functions):
            returns = returns.either(_TODO[1])
            continue
        for parameter, field in states.items():
            if field is None and any(_is_validated(one, parameter) for one in functions):
                reads.append(frozenset(fields))
            elif field is None:
                reads.append(_reads_of_tools(functions, parameter, fields, is_dict=is_dict))
            else:
                reads.append(frozenset({field}))
        if runtime is not None:
            reads.append(
                _reads_of_tools(functions, runtime, fields, is_dict=is_dict, through="state")
            )
        for function in functions:
            returns = returns.together(_tool_answer(function)).either(returns)
    return PrebuiltAccess(union_of(reads), returns)


def _functions_of_tool(tool: Any) -> list[Callable[..., Any]]:
    """The functions that a tool runs."""
    made_of = [getattr(tool, name, None) for name in ("func", "coroutine")]
    return [one for one in made_of if one is not None] or [tool._run, tool._arun]  # noqa: SLF001 - which subclasses of BaseTool define


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
    through: str | None = None,
) -> frozenset[str] | None:
    """What tools read of a state, or of a runtime with the state."""
    sources = [source_of(one, parameter) for one in functions]
    return union_of(
        None if one is None else fields_read(one, fields, is_dict=is_dict, through=through)
        for one in sources
    )


def _tool_answer(function: Any) -> ReturnSummary:
    """The returns of a tool besides its message: nothing, unless it may return a `Command`."""
    if not _may_command(function):
        return ReturnSummary()
    source = source_of(function)
    return ANYTHING if source is None else node_returns(source)


def _may_command(function: Any) -> bool:
    """Whether a tool's function may return a `Command`.

    It does not if its annotation is something else, or if it cannot see the class. A `Command` from
    elsewhere is an error when it runs, because it writes fields that the analysis did not find.
    """
    plain = getattr(function, "__func__", function)
    if not inspect.isfunction(plain):
        return True
    hint = hints_of(plain).get("return", Any)
    if inspect.isclass(hint) and hint is not Any and not issubclass(Command, hint):
        return False
    inner = getattr(plain, "__wrapped__", None)
    is_held = any(one is Command for one in _closure_variables(plain).values())
    return is_held or may_reference(plain, Command) or (inner is not None and _may_command(inner))
