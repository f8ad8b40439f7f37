"""The guards, each configured as its documentation recommends for attacks by data.

A guard gets the tools and what their author knows: a policy by the meaning of tools, the tools that
act on something, and the tools that the user's request needs. Where a guard has a choice, it has
the setting that allows more tasks or costs less time.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from langchain.agents.middleware import AgentMiddleware, HumanInTheLoopMiddleware
from langchain_core.tools import BaseTool

from langchain_sequrity.middleware import PolicyMiddleware


@dataclass(frozen=True)
class Setting:
    """What a guard is made from.

    Attributes:
        tools: The agent's tools. A guard may change them.
        policy: A policy in SQRT.
        acting: The names of the tools that the policy has rules for.
        suite_tools: The names of all tools that some request needs.
        task_tools: The names of the tools that this request needs. Somebody who knows the request
            must name them before the agent runs.
        has_person: Whether there is a person to ask. Without one, a denial is a message.
    """

    tools: Sequence[BaseTool]
    policy: str
    acting: Sequence[str]
    suite_tools: Sequence[str]
    task_tools: Sequence[str]
    has_person: bool = True


@dataclass(frozen=True)
class Guarded:
    """Tools and middleware of a guarded agent, and the exceptions that end its run."""

    tools: Sequence[BaseTool]
    middleware: Sequence[AgentMiddleware[Any, Any, Any]] = ()
    refusals: tuple[type[Exception], ...] = ()


@dataclass(frozen=True)
class Guard:
    """A guard of tool calls.

    Attributes:
        name: Its name in the table.
        package: The package that it comes from, or an empty text.
        protect: Puts an agent under the guard.
        asks: Whether it asks a person.
    """

    name: str
    package: str
    protect: Callable[[Setting], Guarded]
    asks: bool = False

    @property
    def version(self) -> str:
        """The installed version, or an empty text without one."""
        try:
            return version(self.package) if self.package else ""
        except PackageNotFoundError:
            return ""

    @property
    def is_installed(self) -> bool:
        """Whether the guard can run here."""
        return not self.package or bool(self.version)


def _no_guard(setting: Setting) -> Guarded:
    return Guarded(setting.tools)


def _policy(setting: Setting) -> Guarded:
    """Soft denials are questions; without a person they would be messages to the model."""
    middleware: PolicyMiddleware[Any, Any] = PolicyMiddleware(
        setting.policy, on_denied="interrupt" if setting.has_person else "message"
    )
    return Guarded(setting.tools, [middleware])


def _human(setting: Setting) -> Guarded:
    """Asks about the tools that the policy has rules for, and about no other tool."""
    asked: Mapping[str, Any] = {
        tool: {"allowed_decisions": ["approve", "reject"]} for tool in setting.acting
    }
    return Guarded(setting.tools, [HumanInTheLoopMiddleware(interrupt_on=dict(asked))])


def _airlock(setting: Setting, *, of_task: bool) -> Guarded:
    """What the package's own AgentDojo benchmark uses: an allowlist that denies by default.

    Unknown arguments are refused and types are strict. Personal data in results is not masked and
    long results are not cut, because tasks need the addresses, and there is no audit log. Of the
    package's other layers, the guard for tool output only marks it for the model, which this script
    does not heed, and its detectors do not know AgentDojo's text. `sequence_guard` and
    `reauth_on_untrusted_reinvocation` are about order and repetition, not about data, and would
    stop many tasks. `escalate_tools` asks about the same calls as LangChain's own middleware.
    """
    airlock: Any = import_module("agent_airlock")
    adapter: Any = import_module("agent_airlock.integrations.langchain")
    allowed = setting.task_tools if of_task else setting.suite_tools
    toolkit = adapter.SecureToolkit(
        config=airlock.AirlockConfig(
            unknown_args=airlock.UnknownArgsMode.BLOCK,
            mask_pii=False,
            max_output_chars=0,
            enable_audit_log=False,
        ),
        policy=airlock.SecurityPolicy(allowed_tools=list(allowed), default_deny=True),
    )
    return Guarded(toolkit.wrap_tools(list(setting.tools)))


def _governance(setting: Setting, *, of_task: bool) -> Guarded:
    """The template `enterprise` with an allowlist, as `LangChainKernel` documents it.

    The limits on calls and time are raised, so that no task ends by them. The score of drift is
    off, because it only writes a log. A refusal is an exception, which ends the run. The package's
    detectors of injections are not part of this middleware, and do not know AgentDojo's text.
    Version 4.0.0, because the middleware of later ones needs files that no package has.
    """
    integrations: Any = import_module("agent_os.integrations")
    adapter: Any = import_module("agent_os.integrations.langchain_adapter")
    policy = replace(
        integrations.PolicyTemplates.enterprise(),
        allowed_tools=list(setting.task_tools if of_task else setting.suite_tools),
        max_tool_calls=10**9,
        timeout_seconds=10**6,
        drift_threshold=0.0,
    )
    middleware = integrations.LangChainKernel(policy=policy).as_middleware()
    return Guarded(setting.tools, [middleware], (adapter.PolicyViolationError,))


NO_GUARD = Guard("no guard", "", _no_guard)
_AIRLOCK, _GOVERNANCE = "agent-airlock", "agent-governance-toolkit"
GUARDS = (
    NO_GUARD,
    Guard("PolicyMiddleware", "", _policy, asks=True),
    Guard("HumanInTheLoopMiddleware", "langchain", _human, asks=True),
    Guard("agent-airlock, tools of the suite", _AIRLOCK, partial(_airlock, of_task=False)),
    Guard("agent-airlock, tools of the task", _AIRLOCK, partial(_airlock, of_task=True)),
    Guard(
        "agent-governance-toolkit, tools of the suite",
        _GOVERNANCE,
        partial(_governance, of_task=False),
    ),
    Guard(
        "agent-governance-toolkit, tools of the task",
        _GOVERNANCE,
        partial(_governance, of_task=True),
    ),
)
