"""The middleware's verdict on one call: the policy applied to the call's arguments.

A tool's schema may change arguments: it turns `"500"` into 500, reads aliases, drops unknown names
and derives values. So the policy must allow the arguments of the model and those that the tool's
function gets. Any error during a check denies the call.
"""

import copy
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

from langchain_core.tools import BaseTool

from langchain_sequrity.denials import Denial
from langchain_sequrity.errors import UsageError
from langchain_sequrity.headers import PolicyHeader, coerce
from langchain_sequrity.headers.policy_fit import (
    describe,
    is_misfit,
    missing_rules,
    problems,
    warn_of_policy,
)
from langchain_sequrity.labels import NO_LABELS, Labels
from langchain_sequrity.middleware.arguments import (
    BoundArguments,
    arguments_of_tool,
    canonical_json,
)
from langchain_sequrity.middleware.denials import hard_denial
from langchain_sequrity.sqrt import Call, Verdict
from langchain_sequrity.sqrt.coerce import ToolArguments
from langchain_sequrity.sqrt.context import equally_labelled
from langchain_sequrity.sqrt.gate import Gate, ToolReturn, call_digest
from langchain_sequrity.sqrt.lint import check_labels
from langchain_sequrity.sqrt.lint.ways import UNLABELLED_MIDDLEWARE, WAYS
from langchain_sequrity.sqrt.verdict import denial_of as denial_of_verdict
from langchain_sequrity.strict_json import digest_of

Labelling = Literal["conversation", "none"]
Tool = BaseTool | Mapping[str, Any] | str
Args = Mapping[str, Any]
_MAX_AGENTS = 100
_MAX_TOOLS = 1_000


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of a check.

    Attributes:
        session: The new labels of the session, also after a denial.
        verdict: The policy's verdict; `None` if the policy was not applied.
        denial: Why the call must not be made; `None` if it may.
    """

    session: Labels
    verdict: Verdict | None
    denial: Denial | None


class AgentPolicy:
    """A compiled policy with its options. It stores no data of calls, so agents may share it.

    Args:
        policy: As for `ChatSequrity`.
        labelling: Which labels the arguments of a call carry.
        allow_uncertain: Whether a call may be made if the policy allows it only in some readings.
        tools: "agent" to check the policy against the agent's tools, a list of tools to check it
            against these, or `None` for no check.
        labels: Tags and producers that tools set on their results.
        is_strict: Whether an ineffective policy is an error.

    Raises:
        UsageError: If the policy is missing, cannot be applied here, or does not fit the tools; if
            it is ineffective, with `is_strict`.

    Attributes:
        header: The policy as `X-Policy`.
        engine: The compiled policy.
        nesting: Names of tools that run agents with a policy. Their calls share the session.
    """

    def __init__(
        self,
        policy: object,
        *,
        labelling: Labelling,
        allow_uncertain: bool,
        tools: Literal["agent"] | Sequence[Tool] | None,
        labels: Collection[str] = (),
        is_strict: bool = False,
    ) -> None:
        check_labels(labels)
        if labelling not in get_args(Labelling):
            msg = f'`labelling` must be "conversation" or "none"; got {labelling!r}.'
            raise UsageError(msg)
        header = coerce(PolicyHeader, policy)
        self.engine = header.compile()
        self.header = header
        self._labelling = labelling
        self._allow_uncertain = allow_uncertain
        self._identity = digest_of([header.to_header(), labelling, allow_uncertain], _encoded)
        self._usage = WAYS["middleware"] if labelling == "conversation" else UNLABELLED_MIDDLEWARE
        self._tool_labels = tuple(labels)
        self._is_strict = is_strict
        self._looks_at_agent = tools == "agent"
        self._fitting: dict[tuple[int, ...], list[BaseTool]] = {}
        self._learned: dict[int, BaseTool] = {}
        self._tools: dict[str, ToolArguments] = {}
        self._gate = Gate((self.engine,), self._tools)
        self.nesting: set[str] = set()
        self._is_compared = False
        if isinstance(tools, str) and tools != "agent":
            msg = f'`tools` must be "agent", a list of tools or None; got {tools!r}.'
            raise UsageError(msg)
        self._warn(None if tools is None or isinstance(tools, str) else tools)

    # The policy and the tools

    def check_agent(self, tools: list[BaseTool] | None) -> None:
        """Check the policy against the tools of an agent, once for each agent.

        Args:
            tools: Its tools, if they are known.

        Raises:
            UsageError: If a rule is for a tool or an argument that does not exist.
        """
        if not self._looks_at_agent or not tools:
            return
        key = tuple(map(id, tools))
        if key not in self._fitting:
            self._warn(tools)
            if len(self._fitting) >= _MAX_AGENTS:
                self._fitting.clear()
            self._fitting[key] = tools  # keeps the tools alive, so that no id is reused

    def learn_defaults(self, tools: Iterable[object]) -> None:
        """Store the defaults of tools.

        Args:
            tools: An agent's tools. Two different tools with one name have no defaults.
        """
        for tool in tools:
            if not isinstance(tool, BaseTool) or self._learned.get(id(tool)) is tool:
                continue
            if len(self._learned) >= _MAX_TOOLS:
                self._learned.clear()
            self._learned[id(tool)] = tool  # keeps the tool alive, so that its id is not reused
            try:
                arguments = arguments_of_tool(tool)
            except Exception:  # noqa: BLE001 - a schema without a JSON form raises anything
                arguments = ToolArguments()
            first = self._tools.setdefault(tool.name, arguments)
            if canonical_json(first.defaults) != canonical_json(arguments.defaults):
                self._tools[tool.name] = ToolArguments()

    def _warn(self, tools: Sequence[Tool] | None) -> None:
        """Warn of a policy that does less than it says; with tools, not of the policy alone.

        Raises:
            UsageError: If it does not fit the tools; with `is_strict`, instead of a warning.
        """
        labels = self._tool_labels
        of_policy, texts = problems(self.header, self._usage, labels=labels), []
        if not self._is_compared:
            texts.append(missing_rules(self.header, in_process=True))
            texts.append(describe(of_policy, self._usage))
            self._is_compared = True
        if tools is not None:
            of_tools = problems(self.header, self._usage, tools, labels=labels)
            new = [finding for finding in of_tools if finding not in of_policy]
            text = describe(
                new,
                self._usage,
                "The policy does not fit the tools, so it would not protect them",
                "Correct it, or pass the tools of all its agents: `PolicyMiddleware(tools=[…])`.",
            )
            if any(map(is_misfit, new)):
                raise UsageError(text)
            texts.append(text)
        warn_of_policy("\n".join(filter(None, texts)), is_strict=self._is_strict)

    # One call

    def touches_session(self, tool: str) -> bool:
        """Whether a call depends on the session's labels, or changes them when it ends."""
        engine = self.engine
        touches = engine.depends_on_session(tool) or engine.ends_in_session(tool)
        return touches or self.runs_agents(tool)

    def runs_agents(self, tool: str) -> bool:
        """Whether a tool runs agents whose calls may change the session."""
        return tool in self.nesting and self.engine.changes_session

    def for_other_tools(self) -> Self:
        """The same policy, without the check against the tools of an agent."""
        other = copy.copy(self)
        tools: dict[str, ToolArguments] = {}
        vars(other).update(_looks_at_agent=False, _fitting={}, _learned={}, nesting=set())
        vars(other).update(_tools=tools, _gate=Gate((self.engine,), tools))
        return other

    def argument_labels(self, seen: Labels) -> Labels:
        """The labels of each argument of a call.

        Args:
            seen: The join of the labels of all results that the model had seen.
        """
        return seen if self._labelling == "conversation" else NO_LABELS

    def digest(self, message: str, call: Mapping[str, Any], seen: Labels) -> str:
        """Hash of policy, message, call and labels; empty if JSON cannot express the call.

        Args:
            message: Id of the message.
            call: The call.
            seen: The join of the labels of all results that the model had seen.
        """
        labels = self.argument_labels(seen).to_wire()
        try:
            within = [self._identity, message, call["id"]]
            return call_digest(call["name"], call["args"], labels, within=within, encode=_encoded)
        except (RecursionError, TypeError, ValueError):
            return ""

    def decide(self, tool: str, args: Args, seen: Labels, session: Labels) -> CheckResult:
        """Apply the policy to a call, with its updates of the session.

        Args:
            tool: The tool.
            args: The call's arguments.
            seen: The join of the labels of all results that the model had seen.
            session: The session's labels.
        """
        try:
            begun = self._gate.begin(self._labelled_call(tool, args, seen), session)
            session = begun.session
            verdict = self._gate.verdict(begun)
        except Exception as error:  # noqa: BLE001 - after any error the call is denied
            reason = f"checking it raised {type(error).__name__}"
            return CheckResult(session, None, hard_denial(tool, "failed", reason))
        if verdict.allowed and (verdict.certain or self._allow_uncertain):
            return CheckResult(session, verdict, None)
        return CheckResult(session, verdict, denial_of_verdict(verdict))

    def label(
        self,
        tool: str,
        args: Args,
        seen: Labels,
        returned: ToolReturn,
        session: Labels,
        *,
        inputs: Labels,
    ) -> tuple[Labels, Labels]:
        """The labels of a result, or of an error's text, and the new labels of the session."""
        call = self._labelled_call(tool, args, seen)
        return self._gate.result_labels(call, returned, session, inputs)

    def foreseen(
        self, tool: str, args: Args, seen: Labels, session: Labels, *, is_checked: bool
    ) -> Labels:
        """The labels that the session may have after a call whose result is not known.

        Args:
            tool: The tool.
            args: The call's arguments.
            seen: The join of the labels of all results that the model had seen.
            session: The session's labels.
            is_checked: Whether they are those after the check of the call.
        """
        call = self._labelled_call(tool, args, seen)
        return self._gate.foreseen(call, session, is_checked=is_checked)

    def changed_arguments(self, tool: str, args: str, bound: BoundArguments) -> Args | None:
        """The arguments that a tool's function gets, if they differ from those of the model.

        Args:
            tool: The tool.
            args: Those of the model, as canonical JSON.
            bound: What the function gets. Known defaults do not count as different.
        """
        defaults = self._tools.get(tool, ToolArguments()).defaults
        values = {
            name: value
            for name, value in bound.values.items()
            if name in bound.set_by_model
            or name not in defaults
            or canonical_json(value) != canonical_json(defaults[name])
        }
        return None if canonical_json(values) == args else values

    def reads_change(self, args: Args, changed: Args) -> bool:
        """Whether a rule may read an argument that differs between two forms of a call."""
        names = [
            name
            for name in args.keys() | changed.keys()
            if name not in args
            or name not in changed
            or canonical_json(args[name]) != canonical_json(changed[name])
        ]
        return self.engine.may_read(names)

    def _labelled_call(self, tool: str, args: Args, seen: Labels) -> Call:
        return Call(tool, equally_labelled(args, self.argument_labels(seen)))


def _encoded(value: Any) -> bytes:
    """The form of digests in stored threads and open questions, also of values beyond JSON."""
    return canonical_json(value).encode()
