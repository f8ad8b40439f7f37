"""The middleware's verdict on one call: the policy, the bound arguments, the denial.

Its schema turns `"500"` into 500, takes one name for another and drops what it does not know. The
policy has to allow both: what the model asked for and what the tool would get.

The text names the rule's own words and no value of the call: it goes to the model, to logs and to
whoever reads the conversation.

Whatever goes wrong while a call is checked denies it.
"""

import copy
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Any, Literal, Self, get_args

from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import (
    AliasChoices,
    BaseModel,
    RootModel,
    SecretBytes,
    SecretStr,
    ValidationError,
    create_model,
)
from pydantic_core import to_jsonable_python

from langchain_sequrity.denials import Denial, Kind
from langchain_sequrity.display import plain
from langchain_sequrity.errors import PolicyDenied, UsageError
from langchain_sequrity.headers import PolicyHeader, coerce
from langchain_sequrity.headers.policy_fit import without_force, without_labels, without_rules
from langchain_sequrity.labels import Labels
from langchain_sequrity.sqrt import Argument, Call, Verdict, check
from langchain_sequrity.sqrt.coerce import Arguments
from langchain_sequrity.sqrt.verdict import denial_of as denial_of_verdict

_PLAIN = frozenset({type(None), str, bool, int, float})

_EMPTY = (None, list, dict, set, tuple, str, int, float, bool)
"""What makes a default anew and yet the same each time; `None` where there is no such thing."""


def bound(tool: BaseTool | None, args: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The arguments as the tool gets them, where they differ.

    Arguments that the application injects are not among them, so a model that names one names
    nothing.

    Args:
        tool: The tool, if the agent has it.
        args: The arguments that the model wrote.

    Returns:
        Them, or `None` if they are what the model wrote, or if the tool will refuse them.

    Raises:
        UsageError: If the tool's schema is one that cannot be read here.
    """
    schema = None if tool is None else _schema(tool)
    if tool is None or schema is None:
        return None
    injected = frozenset(schema.model_fields) - _asked_for(tool)
    given = {name: one for name, one in args.items() if name not in injected}
    try:
        # Validators may change what they are given.
        made = _without(schema, injected).model_validate(deepcopy(given))
    except ValidationError as error:
        if injected and any(not one["loc"] or one["loc"][0] in injected for one in error.errors()):
            raise  # it may only miss what is injected
        return None
    found = _members(made, made.model_fields_set - injected)
    return None if canonical(found) == canonical(args) else found


def defaults(tool: BaseTool) -> dict[str, Any]:
    """What a tool gets for arguments that a call leaves out, by the names that the model knows.

    Args:
        tool: The tool.

    Returns:
        The defaults of its schema that are the same for each call and can be written as JSON.
    """
    schema = tool.args_schema
    if isinstance(schema, Mapping):
        return dict(Arguments(schemas=_properties(schema)).defaults)
    if schema is None or not issubclass(schema, BaseModel):
        return {}
    found = {}
    for name in _asked_for(tool) & schema.model_fields.keys():
        field = schema.model_fields[name]
        if field.is_required() or field.default_factory not in _EMPTY:
            continue
        with suppress(ValueError):  # no JSON
            found[_name(name, field.validation_alias)] = _json(
                field.get_default(call_default_factory=True)
            )
    return found


def _properties(schema: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    properties = schema.get("properties")
    members = properties.items() if isinstance(properties, Mapping) else ()
    return {name: one for name, one in members if isinstance(one, Mapping)}


def _schema(tool: BaseTool) -> type[BaseModel] | None:
    """What a tool reads its arguments with; `None` if it takes everything as it is."""
    schema = tool.args_schema
    if schema is None or isinstance(schema, dict):
        return None
    if issubclass(schema, BaseModel):
        return schema
    # LangChain takes models of pydantic's first version too, and they change values as well.
    msg = f"The schema of `{plain(tool.name)}` has to be a model of pydantic 2."
    raise UsageError(msg)


def _asked_for(tool: BaseTool) -> AbstractSet[str]:
    schema = tool.tool_call_schema
    if isinstance(schema, type) and issubclass(schema, BaseModel):
        return set(schema.model_fields)
    return set()


@lru_cache(maxsize=256)
def _without(schema: type[BaseModel], injected: frozenset[str]) -> type[BaseModel]:
    """A schema with all of its validators that does not ask for what is injected.

    LangChain's own, `tool_call_schema`, lacks the validators.
    """
    if not injected:
        return schema
    optional: dict[str, Any] = dict.fromkeys(injected, (Any, None))
    return create_model(schema.__name__, __base__=schema, **optional)


def _members(model: BaseModel, names: Iterable[str]) -> dict[str, Any]:
    """Values by the names that the model knows, as they are and not as they would be serialised."""
    fields = type(model).model_fields
    return {
        _name(name, fields[name].validation_alias) if name in fields else name: _json(
            getattr(model, name)
        )
        for name in names
    }


def _name(name: str, alias: Any) -> str:
    if isinstance(alias, AliasChoices):
        alias = alias.choices[0]
    return alias if isinstance(alias, str) else name


def _json(value: Any) -> Any:
    match value:
        case _ if type(value) in _PLAIN:
            found = value
        case RootModel():
            found = _json(value.root)
        case BaseModel():
            found = _members(value, value.model_fields_set)
        case SecretStr() | SecretBytes():
            found = _json(value.get_secret_value())
        case Enum():
            found = _json(value.value)
        case Mapping():
            found = {str(_json(name)): _json(one) for name, one in value.items()}
        case list() | tuple() | set() | frozenset():
            found = [_json(one) for one in value]
        case _:
            found = to_jsonable_python(value)
    return found


def canonical(value: Any) -> str:
    """JSON text that is the same for equal values, whatever the order of their keys."""
    return _ENCODER.encode(value)


_ENCODER = json.JSONEncoder(sort_keys=True, default=repr)


_MARK = "sequrity_denial"
_ADVICE = {"waits": " Make it again, after you have seen the results.", "withheld": ""}
_NOT_AGAIN = " It was not made. Do not repeat it as it is."


def not_made(tool: str, kind: Kind, reason: str) -> Denial:
    """A denial that has no rule behind it; all of these are hard and certain.

    Args:
        tool: The tool.
        kind: Its kind.
        reason: Why, as what follows a colon.
    """
    return Denial(tool, kind, "hard", certain=True, reason=reason)


def told(denial: Denial) -> str:
    """What the model is told; safe to print."""
    return f"{denial.text}{_ADVICE.get(denial.kind, _NOT_AGAIN)}"


def message_of(denial: Denial, call_id: str) -> ToolMessage:
    """The message that stands in the place of the result.

    Args:
        denial: The denial.
        call_id: The id of the call.
    """
    return ToolMessage(
        told(denial),
        name=denial.tool,
        tool_call_id=call_id,
        status="error",
        artifact={_MARK: denial.to_json()},
    )


def error_of(denial: Denial, arguments: Mapping[str, Any], labels: Labels) -> PolicyDenied:
    """The exception of `on_denied="raise"`.

    Args:
        denial: The denial.
        arguments: The call's arguments.
        labels: The labels that each of them carried.
    """
    meta = labels.to_wire()
    known = denial.with_call(arguments, dict.fromkeys(arguments, meta))
    return PolicyDenied(told(denial), denial=known)


def denial_of(message: object) -> Denial | None:
    """Read why a call was not made from the message that stands in the place of its result.

    Args:
        message: Any message of an agent with `PolicyMiddleware`.

    Returns:
        The denial, or `None` for every other message. A tool can return a message that looks like
        one, so this is to look at and to test with, not to decide by.
    """
    artifact = getattr(message, "artifact", None)
    facts = artifact.get(_MARK) if isinstance(artifact, Mapping) else None
    return Denial.from_json(facts) if isinstance(facts, Mapping) else None


Labelling = Literal["conversation", "none"]
Tool = BaseTool | Mapping[str, Any] | str
Args = Mapping[str, Any]
_NO_LABELS = Labels()
_REMEMBERED_AGENTS = 100
_REMEMBERED_TOOLS = 1_000


@dataclass(frozen=True, slots=True)
class Decision:
    """What came of a check.

    Attributes:
        session: The session's labels from now on, also after a denial.
        verdict: What the policy says; `None` if it could not be asked.
        denial: Why the call must not be made; `None` if it may.
    """

    session: Labels
    verdict: Verdict | None
    denial: Denial | None


class Rules:
    """A policy, compiled once; it keeps nothing of any call and may be shared.

    Args:
        policy: Whatever `ChatSequrity` takes as `policy`.
        labelling: What labels the arguments of a call carry.
        allow_uncertain: Whether a call may be made that is allowed, but not for sure.
        tools: "agent" to check the policy against the agent's tools, or the tools themselves, or
            `None` not to check it.

    Raises:
        UsageError: If there is no policy, if it cannot be applied here, or if it is not for these
            tools.

    Attributes:
        nesting: Names of tools that run agents with a policy, whose calls are of the same session.
    """

    def __init__(
        self,
        policy: object,
        *,
        labelling: Labelling,
        allow_uncertain: bool,
        tools: Literal["agent"] | Sequence[Tool] | None,
    ) -> None:
        if labelling not in get_args(Labelling):
            msg = f'`labelling` is "conversation" or "none"; got {labelling!r}.'
            raise UsageError(msg)
        header = coerce(PolicyHeader, policy)
        self.engine = header.compile(dual_llm=False)
        self._header = header
        self._text = (header.codes and header.codes.code) or ""
        self._labelling = labelling
        self._allow_uncertain = allow_uncertain
        self._identity = _hashed([header.to_header(), labelling, allow_uncertain])
        self._looks_at_agent = tools == "agent"
        self._fitting: dict[tuple[int, ...], list[BaseTool]] = {}
        self._learned: dict[int, BaseTool] = {}
        self._defaults: dict[str, Mapping[str, Any] | None] = {}
        self.nesting: set[str] = set()
        if isinstance(tools, str):
            if tools != "agent":
                msg = f'`tools` is "agent", a list of tools or None; got {tools!r}.'
                raise UsageError(msg)
        elif tools is not None:
            self._check(tools)

    # The policy and the tools

    def without_labels(self) -> str:
        """Which rules ask for labels of arguments, one line each."""
        return without_labels(self._header)

    def without_rules(self) -> str:
        """A sentence, if the policy has no rules at all."""
        return without_rules(self._header, here=True)

    def without_force(self) -> str:
        """Which rules let through what they seem to deny, one line each."""
        return without_force(self._header)

    def check_agent(self, tools: list[BaseTool] | None) -> None:
        """Check the policy against the tools of an agent, once for each agent.

        Args:
            tools: Its tools, where they are known.

        Raises:
            UsageError: If a rule is for a tool or an argument that does not exist: it would
                protect nothing.
        """
        if not self._looks_at_agent or not tools:
            return
        key = tuple(map(id, tools))
        if key not in self._fitting:
            self._check(tools)
            if len(self._fitting) >= _REMEMBERED_AGENTS:
                self._fitting.clear()
            self._fitting[key] = tools  # which keeps these ids theirs

    def learn(self, tools: Iterable[object]) -> None:
        """Take what tools get for arguments that a call leaves out.

        Args:
            tools: An agent's tools. Of two that have one name and differ, nothing is known.
        """
        for tool in tools:
            if not isinstance(tool, BaseTool) or self._learned.get(id(tool)) is tool:
                continue
            if len(self._learned) >= _REMEMBERED_TOOLS:
                self._learned.clear()
            self._learned[id(tool)] = tool  # which keeps this id its own
            found = defaults(tool)
            known = self._defaults.setdefault(tool.name, found)
            if known is None or canonical(known) != canonical(found):
                self._defaults[tool.name] = None

    def _check(self, tools: Sequence[Tool]) -> None:
        found = [one for one in check(self._text, [_definition(tool) for tool in tools])
                 if one.severity == "error"]  # fmt: skip
        if found:
            faults = "\n".join(
                f"- line {one.line}: {one.message}. {one.hint}".rstrip() for one in found
            )
            msg = (
                f"The policy does not fit the tools, so it would not protect them:\n{faults}\n"
                "Correct it, or give the tools that it is for: `PolicyMiddleware(tools=[…])`."
            )
            raise UsageError(msg)

    # One call

    def touches_session(self, tool: str) -> bool:
        """Whether a call of a tool goes by the session's labels, or changes them when it ends."""
        engine = self.engine
        touches = engine.depends_on_session(tool) or engine.ends_in_session(tool)
        return touches or self.runs_agents(tool)

    def runs_agents(self, tool: str) -> bool:
        """Whether a tool runs agents whose calls may change the session."""
        return tool in self.nesting and self.engine.changes_session

    def for_other_tools(self) -> Self:
        """The same rules, not checked against the tools of an agent."""
        other = copy.copy(self)
        known: dict[str, Any] = {"_fitting": {}, "_learned": {}, "_defaults": {}, "nesting": set()}
        vars(other).update(_looks_at_agent=False, **known)
        return other

    def argument_labels(self, seen: Labels) -> Labels:
        """The labels that each argument of a call carries.

        Args:
            seen: The join of the labels of all results that the model had seen.
        """
        return seen if self._labelling == "conversation" else _NO_LABELS

    def digest(self, message: str, call: Mapping[str, Any], seen: Labels) -> str:
        """What a decision is for: policy, message, call and labels; empty if nobody can write it.

        Args:
            message: Id of the message.
            call: The call.
            seen: The join of the labels of all results that the model had seen.
        """
        labels = self.argument_labels(seen).to_wire()
        try:
            return _hashed(
                [self._identity, message, call["id"], call["name"], call["args"], labels]
            )
        except (RecursionError, TypeError, ValueError):
            return ""

    def decide(self, tool: str, args: Args, seen: Labels, session: Labels) -> Decision:
        """Change the session as the policy says, and decide.

        Args:
            tool: The tool.
            args: The call's arguments.
            seen: The join of the labels of all results that the model had seen.
            session: The session's labels.
        """
        try:
            call = self._completed(self._call(tool, args, seen))
            session = self.engine.before(call, session)
            verdict = self.engine.decide(call, session)
        except Exception as error:  # noqa: BLE001 - whatever it is, nobody knows if it is allowed
            reason = f"checking it raised {type(error).__name__}"
            return Decision(session, None, not_made(tool, "failed", reason))
        if verdict.allowed and (verdict.certain or self._allow_uncertain):
            return Decision(session, verdict, None)
        return Decision(session, verdict, denial_of_verdict(verdict))

    def label(
        self, tool: str, args: Args, seen: Labels, result: Argument, session: Labels
    ) -> tuple[Labels, Labels]:
        """Label a result: the labels of the result, and those of the session from now on."""
        call = self._completed(self._call(tool, args, seen))
        return self.engine.after(call, result, session)

    def _call(self, tool: str, args: Args, seen: Labels) -> Call:
        labels = self.argument_labels(seen)
        return Call(tool, {name: Argument(value, labels) for name, value in args.items()})

    def _completed(self, call: Call) -> Call:
        """The call with the defaults of what it leaves out, which carry no labels."""
        known = self._defaults.get(call.tool) or {}
        left_out = {
            name: Argument(value) for name, value in known.items() if name not in call.arguments
        }
        return Call(call.tool, {**call.arguments, **left_out}) if left_out else call


def _hashed(facts: Sequence[Any]) -> str:
    return hashlib.sha256(canonical(facts).encode("utf-8", "surrogatepass")).hexdigest()


def _definition(tool: Tool) -> str | Mapping[str, Any]:
    return convert_to_openai_tool(tool) if isinstance(tool, BaseTool) else tool
