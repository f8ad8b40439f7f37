"""The policy of an agent: one call decided, one result labelled, and what its tools are called.

Whatever goes wrong while a call is checked denies it.
"""

import copy
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool

from langchain_sequrity.denials import Denial
from langchain_sequrity.errors import UsageError
from langchain_sequrity.headers import PolicyHeader, coerce
from langchain_sequrity.headers.fitting import without_force, without_labels, without_rules
from langchain_sequrity.labels import Labels
from langchain_sequrity.middleware.binding import canonical, defaults
from langchain_sequrity.middleware.denial import not_made
from langchain_sequrity.sqrt import Argument, Call, Verdict, check
from langchain_sequrity.sqrt.denying import denial_of as denial_of_verdict

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
