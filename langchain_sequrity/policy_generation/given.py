"""What the caller gives, in any of its forms: the model, and the tools that the policy is for."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from langchain_core.runnables import Runnable
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.tools import BaseTool

from langchain_sequrity.chat_models import ChatSequrity, SequrityMessages
from langchain_sequrity.chat_models.base import SequrityChatModel
from langchain_sequrity.chat_models.tools import write_tool
from langchain_sequrity.errors import UsageError
from langchain_sequrity.wire.tools import Function, neutral, read_function

ModelLike = SequrityChatModel | Runnable[Any, Any] | str
ToolLike = dict[str, Any] | type | Callable[..., Any] | BaseTool


def read_model(
    model: ModelLike, connection: Mapping[str, Any]
) -> tuple[SequrityChatModel, Iterable[ToolLike] | None]:
    """Find the chat model, and the tools that are bound to it.

    Args:
        model: A model, one with tools bound, or a name.
        connection: Arguments for the model that a name stands for.

    Returns:
        The model, and its tools where it has some.

    Raises:
        UsageError: If it is something else, or the arguments are not for it.
    """
    if isinstance(model, str):
        kind = SequrityMessages if connection.get("provider") == "anthropic" else ChatSequrity
        return kind(model, **connection), None
    if connection:
        msg = (
            f"`{next(iter(connection))}` is no argument of the tool. If it is one of the model, "
            "give it to the model; with a model's name in its place, it may stand here."
        )
        raise UsageError(msg)
    found, bound = _unbound(model)
    if not isinstance(found, SequrityChatModel):
        msg = (
            "`model` is a `ChatSequrity` or a `SequrityMessages`, perhaps with tools bound to it, "
            f"or the name of a model; got {type(found).__name__}."
        )
        raise UsageError(msg)
    if name := bound.get("model"):
        found = found.model_copy(update={"model": name})
    return found, bound.get("tools")


def _unbound(model: Any) -> tuple[Any, dict[str, Any]]:
    """What is inside of bindings, and their arguments; the outermost wins."""
    bound: dict[str, Any] = {}
    while isinstance(model, RunnableBindingBase):
        bound = {**model.kwargs, **bound}
        model = model.bound
    return model, bound


def function_tools(tools: Iterable[ToolLike]) -> Iterator[dict[str, Any]]:
    """Write tools in the neutral form, with what a policy can be about and nothing else.

    Args:
        tools: What `bind_tools` takes.

    Yields:
        Those that are functions. A policy does not see the calls of tools that the service runs
        itself, so these are left out.

    Raises:
        UsageError: For what is no tool, and for one that stands alone.
    """
    if isinstance(tools, str | Mapping | BaseTool) or not isinstance(tools, Iterable):
        msg = f"`tools` is a list of tools; got {type(tools).__name__}. Write `[…]` around it."
        raise UsageError(msg)
    for index, tool in enumerate(tools):
        try:
            function = read_function(write_tool(tool, strict=None))
        except (KeyError, TypeError, ValueError) as error:
            raise _no_tool(index, tool) from error
        if function is not None:
            yield neutral(_checked(function, index, tool))


def _checked(function: Function, index: int, tool: Any) -> Function:
    named = isinstance(function.name, str) and function.name
    if not named or not isinstance(function.parameters, Mapping | None):
        raise _no_tool(index, tool)
    return Function(function.name, function.description, function.parameters)


def _no_tool(index: int, tool: Any) -> UsageError:
    msg = (
        f"`tools[{index}]` is no tool. Expected a LangChain tool, a function, a pydantic class, a "
        f"TypedDict, or a tool object with a name and a JSON Schema; got {type(tool).__name__}."
    )
    return UsageError(msg)
