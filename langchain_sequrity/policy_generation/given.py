"""What the caller gives, in any of its forms: the model, and the tools that the policy is for."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from langchain_core.runnables import Runnable
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.tools import BaseTool

from langchain_sequrity.chat_models import ChatSequrity, SequrityMessages
from langchain_sequrity.chat_models.base import SequrityChatModel
from langchain_sequrity.chat_models.tools import write_tool
from langchain_sequrity.display import plain
from langchain_sequrity.errors import UsageError
from langchain_sequrity.suggestions import nearest
from langchain_sequrity.wire.tools import Function, neutral, read_function

ModelLike = SequrityChatModel | Runnable[Any, Any] | str
ToolLike = dict[str, Any] | type | Callable[..., Any] | BaseTool


def read_model(
    model: ModelLike, connection: Mapping[str, Any], names: Iterable[str]
) -> tuple[SequrityChatModel, Iterable[ToolLike] | None]:
    """Find the chat model, and the tools that are bound to it.

    Args:
        model: A model, one with tools bound, or a name.
        connection: Arguments for the model that a name stands for.
        names: Arguments that the tool itself has.

    Returns:
        The model, and its tools where it has some.

    Raises:
        UsageError: If it is something else, or the arguments are not for it.
    """
    if isinstance(model, str):
        kind = SequrityMessages if connection.get("provider") == "anthropic" else ChatSequrity
        return kind(model, **connection), None
    if connection:
        wrong = next(iter(connection))
        of_model = (
            "What is meant for the model is given to the model; it may stand here only beside a "
            "model's name."
        )
        near = "" if wrong in SequrityChatModel.model_fields else nearest(wrong, names)
        msg = f"`{wrong}` is not an argument of `PolicyGenTool`. {near or of_model}"
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
        kind = type(tools).__name__
        msg = f"`tools` is a list of tools; got a single `{kind}`. Write `[…]` around it."
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
    what = (
        f"the text {tool!r}"
        if isinstance(tool, str)
        else f"a value of type `{type(tool).__name__}`"
    )
    msg = (
        f"`tools[{index}]` is not a tool. Expected a LangChain tool, a function, a pydantic class, "
        f"a TypedDict, or a tool object with a name and a JSON Schema; got {plain(what, limit=80)}."
    )
    return UsageError(msg)
