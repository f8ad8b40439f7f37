"""Models by the name that clients send, and which of them a key may use."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Literal, get_args

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk

from langchain_sequrity.display import plain
from langchain_sequrity.errors import UsageError
from langchain_sequrity.local.backends import BackendContext, ModelBackend, Role, RoleBackend
from langchain_sequrity.local.refusals import refuse
from langchain_sequrity.wire.dual_llm import split_models
from langchain_sequrity.wire.exchange import ChatRequest

TableRole = Literal["chat", "planner", "reader", "policy"]
_LONGEST_NAME = 60


class ModelTable:
    """Backends by the name of a model; it is a backend itself.

    Args:
        models: For each name, chat models by role. `chat` also serves the roles that are not
            listed; without it, the planner does, or else the first of the others.

    Attributes:
        names: The roles of each name.

    Raises:
        UsageError: If it is empty, or an entry is not valid.
    """

    def __init__(self, models: Mapping[str, Mapping[TableRole, BaseChatModel]]) -> None:
        if not models:
            msg = "The table of models is empty. List at least one model."
            raise UsageError(msg)
        self.names: dict[str, list[str]] = {}
        self._backends: dict[str, RoleBackend] = {}
        self._default_backends: dict[str, ModelBackend] = {}
        for name, by_role in models.items():
            _check_entry(name, by_role)
            backends = {role: ModelBackend(model) for role, model in by_role.items()}
            default = next(backends[role] for role in get_args(TableRole) if role in backends)
            roles: dict[Role, ModelBackend] = {
                role: backends[role] for role in get_args(Role) if role in backends
            }
            self._default_backends[name] = default
            self._backends[name] = RoleBackend(roles, default)
            self.names[name] = [role for role in get_args(TableRole) if role in backends]

    def stream(self, request: ChatRequest, context: BackendContext) -> Iterator[AIMessageChunk]:
        """Answer with the model that the request names, in its role."""
        return self._backends[self._entry(request.model)].stream(request, context)

    def count_tokens(self, request: ChatRequest) -> int:
        """Count the input tokens of a request, as the model does."""
        return self._default_backends[self._entry(request.model)].count_tokens(request)

    def _entry(self, model: str) -> str:
        """The name of a request, or that of the planner of a pair."""
        check_models([model], self.names)
        return model if model in self._backends else split_models(model)[0]


def _check_entry(name: str, by_role: Mapping[TableRole, BaseChatModel]) -> None:
    if not isinstance(name, str) or not name or "," in name or plain(name) != name:
        msg = (
            f"`{plain(str(name), limit=_LONGEST_NAME)}` cannot be the name of a model: a name is "
            "one line of printable characters without a comma, which separates planner and worker."
        )
        raise UsageError(msg)
    roles = ", ".join(f"`{role}`" for role in get_args(TableRole))
    if not by_role or not by_role.keys() <= set(get_args(TableRole)):
        msg = f"The model `{name}` needs a chat model for at least one of {roles}, and no others."
        raise UsageError(msg)
    for role, model in by_role.items():
        if not isinstance(model, BaseChatModel):
            msg = (
                f"`{role}` of the model `{name}` must be a LangChain chat model; got "
                f"`{type(model).__name__}`."
            )
            raise UsageError(msg)


def usable_models(
    listed: Collection[str] | None, allowed: Collection[str] | None
) -> list[str] | None:
    """The names that a key may send, in the order of the table; `None` if it may send any name.

    Args:
        listed: The names of the table; `None` without a table.
        allowed: The names that the key may use; `None` if it may use all.
    """
    if listed is None:
        return None if allowed is None else sorted(allowed)
    return [name for name in listed if allowed is None or name in allowed]


def check_models(
    models: Iterable[str],
    listed: Collection[str] | None,
    allowed: Collection[str] | None = None,
) -> None:
    """Check the names of models in a request; a pair `"planner,worker"` has two names.

    Args:
        models: The names.
        listed: As for `usable_models`.
        allowed: As for `usable_models`.

    Raises:
        StatusError: 404 with the list of names for a name that is not on it.
    """
    usable = usable_models(listed, allowed)
    if usable is None:
        return
    for model in models:
        for name in dict.fromkeys((model,) if model in usable else split_models(model)):
            if name not in usable:
                refuse_model(name, usable)


def refuse_model(name: str, usable: Collection[str]) -> None:
    """Refuse the name of a model with 404 and the names that exist."""
    names = ", ".join(f"`{name}`" for name in usable) or "none for this key"
    refuse(
        404,
        f"There is no model `{plain(name, limit=_LONGEST_NAME)}`. Models are: {names}.",
        error_type="model_not_found",
    )
