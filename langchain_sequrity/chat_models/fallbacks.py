"""Fallbacks and retries that a denial does not trigger.

LangChain's `with_fallbacks` and `with_retry` handle every `Exception`, and a `PolicyDenied` is one:
another model, under no policy, would act in the place of the one that was refused. Our models, and
what LangChain makes of them (`bind`, `with_config`, `model | parser`, …), handle failures of the
service instead. Whoever wants more names the exceptions.

The classes have the names of LangChain's, which traces and serialized runnables show.
`prompt | model` is made by the prompt, and is LangChain's own.
"""

from collections.abc import Callable, Sequence
from functools import cache, wraps
from importlib import import_module
from types import new_class
from typing import TYPE_CHECKING, Any, TypeVar, cast

from langchain_core.exceptions import (
    ContextOverflowError,
    ModelAPIError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelInvalidRequestError,
    ModelNotFoundError,
    ModelPermissionDeniedError,
    ModelRateLimitError,
    ModelTimeoutError,
)
from langchain_core.runnables import Runnable, base
from pydantic import ConfigDict
from typing_extensions import override

from langchain_sequrity.errors import ServiceError

if TYPE_CHECKING:
    from langchain_core.runnables.fallbacks import RunnableWithFallbacks
    from langchain_core.runnables.retry import ExponentialJitterParams
    from pydantic import BaseModel

Input = TypeVar("Input")
Output = TypeVar("Output")
R = TypeVar("R", bound=Runnable[Any, Any])

SERVICE_ERRORS: tuple[type[BaseException], ...] = (
    ServiceError,
    # LangChain's own of the same kind, so that a third model is asked where the second one fails.
    ContextOverflowError,
    ModelAPIError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelInvalidRequestError,
    ModelNotFoundError,
    ModelPermissionDeniedError,
    ModelRateLimitError,
    ModelTimeoutError,
)
"""What `with_fallbacks` handles where no exceptions are named: no `TurnFailed`, no `UsageError`."""


def may_be_retried(error: BaseException) -> bool:
    """Whether `with_retry` tries again where no exceptions are named.

    Args:
        error: What was raised.

    Returns:
        Whether it is a `ServiceError` after which sending again is safe and may help.
    """
    return isinstance(error, ServiceError) and error.is_retryable


class Guarded(Runnable[Input, Output]):
    """A runnable whose fallbacks and retries leave denials alone, as does what is made of it."""

    @override
    def with_fallbacks(
        self,
        fallbacks: Sequence[Runnable[Input, Output]],
        *,
        exceptions_to_handle: tuple[type[BaseException], ...] = SERVICE_ERRORS,
        exception_key: str | None = None,
    ) -> "RunnableWithFallbacks[Input, Output]":
        """Try other models where this one fails; a denial is raised and no other model is asked.

        Args:
            fallbacks: What to try, in this order.
            exceptions_to_handle: What counts as a failure. By default errors of the service.
                `(Exception,)` includes denials: then every fallback must be under the policy too.
            exception_key: Name under which a fallback finds the error in its input.

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
        made = super().with_fallbacks(
            fallbacks, exceptions_to_handle=exceptions_to_handle, exception_key=exception_key
        )
        return guarded(made)

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
        """Try again where that is safe and may help; a denial is raised at once.

        A model already does so (`max_retries`).

        Args:
            retry_if_exception_type: What to try again after, or a function that says so. By default
                every `ServiceError` with `is_retryable`.
            wait_exponential_jitter: Whether waits vary at random.
            exponential_jitter_params: `initial`, `max`, `exp_base` and `jitter`, in seconds.
            stop_after_attempt: How often it is tried in all.

        Returns:
            The model with retries.
        """
        made = super().with_retry(
            retry_if_exception_type=retry_if_exception_type,
            wait_exponential_jitter=wait_exponential_jitter,
            exponential_jitter_params=exponential_jitter_params,
            stop_after_attempt=stop_after_attempt,
        )
        return guarded(made)


def guarded(made: R) -> R:
    """What LangChain made of a guarded runnable, guarded too.

    Args:
        made: A runnable. One that is not of LangChain's own classes is returned as it is.
    """
    name = type(made).__name__
    if name not in _MADE or not type(made).__module__.startswith("langchain_core."):
        return made
    kind = _guarded_kind(name)
    # Not through the constructor, which would copy and check what has been checked.
    state: dict[Any, Any] = cast("BaseModel", made).__getstate__()
    same: Any = object.__new__(kind)
    same.__setstate__(state)
    return cast("R", same)


# What LangChain makes of a runnable, and the modules of these classes.
_MADE = {
    "RunnableBinding": "runnables.base",
    "_ChatModelBinding": "language_models.chat_models",
    "RunnableSequence": "runnables.base",
    "RunnableEach": "runnables.base",
    "RunnableWithFallbacks": "runnables.fallbacks",
    "RunnableRetry": "runnables.retry",
    "RunnableConfigurableFields": "runnables.configurable",
    "RunnableConfigurableAlternatives": "runnables.configurable",
}


@cache
def _guarded_kind(name: str) -> type[Any]:
    """LangChain's class, guarded; made only now: a program may make a model and nothing of it."""
    own = getattr(import_module(f"langchain_core.{_MADE[name]}"), name)
    body = {
        "__module__": __name__,
        "__doc__": "LangChain's, guarded.",
        # Without type parameters and built late: both would build classes that nobody uses.
        "model_config": ConfigDict(arbitrary_types_allowed=True, defer_build=True),
    }
    return new_class(name, (Guarded, own), exec_body=lambda namespace: namespace.update(body))


def __getattr__(name: str) -> type[Any]:
    """Find a guarded class by its name, as `pickle` does."""
    if name in _MADE:
        return _guarded_kind(name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)


def _hand_guard_on(name: str) -> None:
    """Let a method that makes another runnable make a guarded one."""

    @wraps(getattr(base.RunnableSerializable, name))
    def method(self: Guarded[Any, Any], *args: Any, **kwargs: Any) -> Any:
        return guarded(getattr(super(Guarded, self), name)(*args, **kwargs))

    setattr(Guarded, name, method)


# Added here and not written above, so that their types stay LangChain's overloads.
for _name in (
    "__or__", "__ror__", "pipe", "map", "bind", "with_config", "with_types", "with_listeners",
    "with_alisteners", "configurable_fields", "configurable_alternatives",
):  # fmt: skip
    _hand_guard_on(_name)
