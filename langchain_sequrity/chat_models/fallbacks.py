"""Fallbacks and retries that a denial does not trigger, and parsers that do not read it.

LangChain's `with_fallbacks` and `with_retry` handle every `Exception`, also `PolicyDenied`: a model
without a policy would then do what the policy has denied. Our models, and the runnables that
LangChain makes of them (`bind`, `with_config`, `model | parser`, …), handle only failures of the
service. The caller can name other exceptions. A denial that is a message (`on_denied="message"`) is
raised before a parser reads it: it is no answer.

The classes have the names of LangChain's classes, which traces and serialized runnables show.
`prompt | model` is made by the prompt, so it is LangChain's own class.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, wraps
from importlib import import_module
from types import new_class
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar, cast

from langchain_core import exceptions
from langchain_core.output_parsers.base import BaseLLMOutputParser
from langchain_core.runnables import Runnable, base
from pydantic import ConfigDict
from typing_extensions import override

from langchain_sequrity.chat_models.run_config import (
    joined_arguments,
    refuse_config_names,
    refuse_setting_names,
)
from langchain_sequrity.errors import ServiceError, UsageError
from langchain_sequrity.wire.dual_llm import raise_if_denied, shown_denial

if TYPE_CHECKING:
    from langchain_core.runnables.fallbacks import RunnableWithFallbacks
    from langchain_core.runnables.retry import ExponentialJitterParams
    from pydantic import BaseModel

Input = TypeVar("Input")
Output = TypeVar("Output")
R = TypeVar("R", bound=Runnable[Any, Any])

SERVICE_ERRORS: tuple[type[BaseException], ...] = (
    ServiceError,
    # LangChain's classes of the same kind, so that a third model follows if the second one fails.
    exceptions.ContextOverflowError,
    exceptions.ModelAPIError,
    exceptions.ModelAuthenticationError,
    exceptions.ModelConnectionError,
    exceptions.ModelInvalidRequestError,
    exceptions.ModelNotFoundError,
    exceptions.ModelPermissionDeniedError,
    exceptions.ModelRateLimitError,
    exceptions.ModelTimeoutError,
)
"""Exceptions that `with_fallbacks` handles by default; not `TurnFailed`, not `UsageError`."""


def may_be_retried(error: BaseException) -> bool:
    """Whether `with_retry` tries again by default.

    Args:
        error: The exception.

    Returns:
        Whether it is a `ServiceError` after which sending again is safe and may help.
    """
    return isinstance(error, ServiceError) and error.is_retryable


class PassesDenials(Runnable[Input, Output]):
    """A runnable whose fallbacks and retries let a denial pass. So do runnables made from it."""

    @override
    def with_fallbacks(
        self,
        fallbacks: Sequence[Runnable[Input, Output]],
        *,
        exceptions_to_handle: tuple[type[BaseException], ...] = SERVICE_ERRORS,
        exception_key: str | None = None,
    ) -> "RunnableWithFallbacks[Input, Output]":
        """Use other models if this one fails. A denial is raised, and no other model is called.

        Args:
            fallbacks: The other runnables, in this order.
            exceptions_to_handle: The exceptions that are failures. By default errors of the
                service. `(Exception,)` includes denials: then every fallback needs the policy too.
            exception_key: Key of the error in the input of a fallback.

        Returns:
            The model with its fallbacks.

        Example:
            ```python
            from langchain_sequrity import ChatSequrity
            from langchain_sequrity.local import LocalServer

            with LocalServer() as server:
                spare = ChatSequrity("any/model", base_url=server.base_url)
                first = ChatSequrity("any/model", base_url="http://127.0.0.1:9", max_retries=0)
                print(first.with_fallbacks([spare]).invoke("Hello!").text)
            ```
        """
        runnable = super().with_fallbacks(
            fallbacks, exceptions_to_handle=exceptions_to_handle, exception_key=exception_key
        )
        return guarded(runnable)

    @override
    def with_retry(
        self,
        *,
        retry_if_exception_type: tuple[type[BaseException], ...]
        | Callable[[BaseException], bool] = may_be_retried,
        wait_exponential_jitter: bool = True,
        exponential_jitter_params: "ExponentialJitterParams | None" = None,
        stop_after_attempt: int = 3,
    ) -> Runnable[Input, Output]:
        """Try again if that is safe and may help. A denial is raised at once.

        A model already retries by itself (`max_retries`).

        Args:
            retry_if_exception_type: The exceptions after which to try again, or a function that
                decides. By default every `ServiceError` with `is_retryable`.
            wait_exponential_jitter: Whether waits vary randomly.
            exponential_jitter_params: `initial`, `max`, `exp_base` and `jitter`, in seconds.
            stop_after_attempt: Number of attempts, with the first.

        Returns:
            The model with retries.
        """
        runnable = super().with_retry(
            retry_if_exception_type=retry_if_exception_type,
            wait_exponential_jitter=wait_exponential_jitter,
            exponential_jitter_params=exponential_jitter_params,
            stop_after_attempt=stop_after_attempt,
        )
        return guarded(runnable)


# Fields that hold the runnables inside.
_INNER = ("bound", "default", "runnable", "fallbacks", "alternatives")


class Wrapper(PassesDenials[Input, Output]):
    """A guarded runnable with models inside, to which copies with other parameters pass on."""

    model_fields: ClassVar[Any]

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Copy the runnable, and change its fields, or parameters of every model inside.

        Args:
            update: New values of fields, and of parameters such as `policy`.
            deep: Whether what is inside is copied too.

        Raises:
            UsageError: For a parameter, if something inside does not have parameters.
        """
        inherited: Any = super()
        names = type(self).model_fields.keys()
        fields = {name: value for name, value in (update or {}).items() if name in names}
        parameters = {name: value for name, value in (update or {}).items() if name not in names}
        copied: Self = inherited.model_copy(update=fields, deep=deep)
        if not parameters:
            return copied
        inside = [name for name in _INNER if name in names]
        if not inside:  # a sequence
            raise _cannot_be_changed(parameters)
        changes = {name: _with_parameters(getattr(copied, name), parameters) for name in inside}
        return copied.model_copy(update=changes)

    def copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Copy as `model_copy` does."""
        return self.model_copy(update=update, deep=deep)

    @override
    def bind(self, **kwargs: Any) -> Any:
        """Bind arguments of each call.

        Raises:
            UsageError: For a parameter of the model, such as `policy`.
        """
        refuse_setting_names(kwargs)
        return super().bind(**kwargs)

    @override
    def with_config(self, config: Any = None, **kwargs: Any) -> Any:
        """Bind a config.

        Raises:
            UsageError: For a parameter of the model, such as `policy`.
        """
        refuse_config_names({**(config or {}), **kwargs})
        return super().with_config(config, **kwargs)


def _with_parameters(inside: Any, parameters: Mapping[str, Any]) -> Any:
    """Copies of the runnables in a field, with other parameters of their models."""
    if isinstance(inside, Mapping):
        return {name: _with_parameters(value, parameters) for name, value in inside.items()}
    if isinstance(inside, list | tuple):
        return [_with_parameters(value, parameters) for value in inside]
    copy = getattr(inside, "model_copy", None) if isinstance(inside, PassesDenials) else None
    if copy is not None:
        return copy(update=parameters)
    raise _cannot_be_changed(parameters)


def _cannot_be_changed(parameters: Iterable[str]) -> UsageError:
    name = next(iter(parameters))
    return UsageError(
        f"`{name}` belongs to the model, and not everything inside this runnable is a model of "
        f"this package. Use `model.model_copy(update={{{name!r}: …}})` for each model, and make "
        "the runnable of the copies."
    )


# Arguments of a call that `bind_tools` and `with_structured_output` set anew.
_TOOL_ARGUMENTS = frozenset({"tools", "tool_choice", "parallel_tool_calls", "response_format"})


class Binding(Wrapper[Input, Output]):
    """A binding whose arguments stay when tools or a schema are bound after them.

    LangChain's own binding passes these methods on to the model, which does not know the binding: a
    policy in `extra_headers`, or a `session_id`, would be dropped.
    """

    bound: Any
    kwargs: Any
    config: Any

    def bind_tools(self, tools: Any, **kwargs: Any) -> Runnable[Any, Any]:
        """Give the model tools, as `bind_tools` of the model."""
        return self._configured(self.bound.bind_tools(tools, **self._arguments(kwargs)))

    def with_structured_output(self, schema: Any = None, **kwargs: Any) -> Runnable[Any, Any]:
        """Answer in a schema, as `with_structured_output` of the model."""
        structured = self.bound.with_structured_output(schema, **self._arguments(kwargs))
        return self._configured(structured)

    @override
    def bind(self, **kwargs: Any) -> Any:
        """Bind further arguments, as `bind` of the model."""
        self.bound.bind(**kwargs)  # the model refuses arguments that would have no effect
        return super().bind(**joined_arguments(self.kwargs, kwargs))

    @override
    def with_config(self, config: Any = None, **kwargs: Any) -> Any:
        """Bind a config, as `with_config` of the model."""
        self.bound.with_config(config, **kwargs)  # as above
        return super().with_config(config, **kwargs)

    def _arguments(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        bound = {name: value for name, value in self.kwargs.items() if name not in _TOOL_ARGUMENTS}
        return joined_arguments(bound, kwargs)

    def _configured(self, runnable: Runnable[Any, Any]) -> Runnable[Any, Any]:
        return runnable.with_config(self.config) if self.config else runnable

    @override
    async def ainvoke(self, input: Input, config: Any = None, **kwargs: Any) -> Output:
        # `async`, as is `abatch`: LangChain calls a plain function in a thread.
        return await super().ainvoke(input, config, **self._call_arguments(kwargs))

    @override
    async def abatch(self, inputs: list[Input], config: Any = None, **kwargs: Any) -> list[Output]:
        return await super().abatch(inputs, config, **self._call_arguments(kwargs))

    def _call_arguments(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        # LangChain then adds the other bound arguments.
        return joined_arguments(self.kwargs, kwargs) if kwargs else kwargs


def _join_arguments_of_calls(name: str) -> None:
    """Let a method of `Binding` join the arguments of the call with the bound ones."""

    @wraps(getattr(base.RunnableBindingBase, name))
    def method(self: Binding[Any, Any], *args: Any, **kwargs: Any) -> Any:
        return getattr(super(Binding, self), name)(*args, **self._call_arguments(kwargs))

    setattr(Binding, name, method)


# Set here, so that they keep the types of LangChain's overloads.
for _name in (
    "invoke", "batch", "batch_as_completed", "abatch_as_completed", "stream", "astream",
    "stream_events", "astream_events", "transform", "atransform",
):  # fmt: skip
    _join_arguments_of_calls(_name)


class Configurable(Wrapper[Input, Output]):
    """A choice of a run to which tools or a schema can be bound.

    They are bound to what the run's config has chosen. LangChain's own classes bind them to the
    default: an alternative with a policy, or a configured policy, would be dropped.
    """

    default: Any
    config: Any
    deferred: Any = ()

    def bind_tools(self, tools: Any, **kwargs: Any) -> Runnable[Any, Any]:
        """Give the chosen model tools, as `bind_tools` of the model."""
        return self._deferring("bind_tools", tools, kwargs)

    def with_structured_output(self, schema: Any = None, **kwargs: Any) -> Runnable[Any, Any]:
        """Answer in a schema, as `with_structured_output` of the chosen model."""
        return self._deferring("with_structured_output", schema, kwargs)

    def configurable_fields(self, **kwargs: Any) -> Any:
        """Make further parameters configurable; what was bound or chosen before stays."""
        inherited: Any = super()
        earlier = {"deferred": self.deferred, "config": self.config}
        return inherited.configurable_fields(**kwargs).model_copy(update=earlier)

    def _deferring(self, method: str, argument: Any, kwargs: dict[str, Any]) -> Self:
        deferred = (*self.deferred, (method, argument, kwargs))
        _apply(deferred, self.default)  # wrong arguments are refused now
        return self.model_copy(update={"deferred": deferred})

    def _prepare(self, config: Any = None) -> Any:
        inherited: Any = super()
        runnable, config = inherited._prepare(config)  # noqa: SLF001 - where LangChain chooses
        return _apply(self.deferred, runnable), config


def _apply(calls: Iterable[tuple[str, Any, dict[str, Any]]], runnable: Any) -> Any:
    """What methods make of a runnable, one after the other."""
    for method, argument, kwargs in calls:
        runnable = getattr(runnable, method)(argument, **kwargs)
    return runnable


def guarded(runnable: R) -> R:
    """The guarded form of a runnable that LangChain made of a guarded one.

    Args:
        runnable: The runnable. It is returned unchanged if its class is not one of LangChain's.
    """
    name = type(runnable).__name__
    if name not in _CLASSES or not type(runnable).__module__.startswith("langchain_core."):
        return runnable
    guarded_class = _guarded_class(name)
    # Not through the constructor, which would copy and check everything again.
    state: dict[Any, Any] = cast("BaseModel", runnable).__getstate__()
    guarded_runnable: Any = object.__new__(guarded_class)
    guarded_runnable.__setstate__(state)
    return cast("R", guarded_runnable)


# The classes that LangChain makes of a runnable, and their modules.
_CLASSES = {
    "RunnableBinding": "runnables.base",
    "_ChatModelBinding": "language_models.chat_models",
    "RunnableSequence": "runnables.base",
    "RunnableEach": "runnables.base",
    "RunnableWithFallbacks": "runnables.fallbacks",
    "RunnableRetry": "runnables.retry",
    "RunnableConfigurableFields": "runnables.configurable",
    "RunnableConfigurableAlternatives": "runnables.configurable",
}
_BASES: Mapping[str, type[Any]] = {
    "RunnableBinding": Binding,
    "_ChatModelBinding": Binding,
    "RunnableConfigurableFields": Configurable,
    "RunnableConfigurableAlternatives": Configurable,
}


@cache
def _guarded_class(name: str) -> type[Any]:
    """The guarded form of a class of LangChain. Made at its first use: most programs need few."""
    langchain_class = getattr(import_module(f"langchain_core.{_CLASSES[name]}"), name)
    bases = (_BASES.get(name, Wrapper), langchain_class)
    body = {
        "__module__": __name__,
        "__doc__": "LangChain's, guarded.",
        # No type parameters, and a deferred build: otherwise unused classes would be built.
        "model_config": ConfigDict(arbitrary_types_allowed=True, defer_build=True),
    }
    return new_class(name, bases, exec_body=lambda namespace: namespace.update(body))


def __getattr__(name: str) -> type[Any]:
    """Find a guarded class by its name, as `pickle` does."""
    if name in _CLASSES:
        return _guarded_class(name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def _guard_result_of(name: str) -> None:
    """Wrap a method that returns a runnable, so that it returns a guarded one."""

    @wraps(getattr(base.RunnableSerializable, name))
    def method(self: PassesDenials[Any, Any], *args: Any, **kwargs: Any) -> Any:
        if name in ("__or__", "pipe") and _shows_denials(self):
            args = tuple(map(_after_denial_check, args))
        return guarded(getattr(super(PassesDenials, self), name)(*args, **kwargs))

    setattr(PassesDenials, name, method)


def _shows_denials(runnable: Any) -> bool:
    """Whether a model inside a runnable shows denials as messages."""
    if getattr(runnable, "on_denied", None) == "message":
        return True
    if isinstance(runnable, list | tuple):
        return any(map(_shows_denials, runnable))
    fields = getattr(type(runnable), "model_fields", {})
    return any(
        _shows_denials(getattr(runnable, name)) for name in (*_INNER, "last") if name in fields
    )


def _after_denial_check(step: Any) -> Any:
    """What follows a model, with a step that raises denials before a parser reads them."""
    first = getattr(step, "first", step)
    if not isinstance(first, BaseLLMOutputParser):
        return step
    return base.RunnableGenerator(_answers, _aanswers) | step


# Both read the stream to its end, so that its connection can be used again.


def _answers(messages: Iterator[Any]) -> Iterator[Any]:
    denied = None
    for message in messages:
        if shown_denial(message) is None:
            yield message
        else:
            denied = message
    raise_if_denied(denied)


async def _aanswers(messages: AsyncIterator[Any]) -> AsyncIterator[Any]:
    denied = None
    async for message in messages:
        if shown_denial(message) is None:
            yield message
        else:
            denied = message
    raise_if_denied(denied)


# Set here, so that they keep the types of LangChain's overloads.
for _name in (
    "__or__", "__ror__", "pipe", "map", "bind", "with_config", "with_types", "with_listeners",
    "with_alisteners", "configurable_fields", "configurable_alternatives",
):  # fmt: skip
    _guard_result_of(_name)
