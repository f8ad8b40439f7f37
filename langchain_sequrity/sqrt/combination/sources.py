"""The policies of a combination: their names, texts and settings, read from what callers pass."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from langchain_sequrity.display import plain
from langchain_sequrity.errors import PolicySyntaxError, UsageError
from langchain_sequrity.sqrt import nodes
from langchain_sequrity.sqrt.engine import Engine, compile_policy
from langchain_sequrity.sqrt.nodes import Policy
from langchain_sequrity.sqrt.parser import parse
from langchain_sequrity.sqrt.policy_forms import (
    AnyPolicy,
    check_policy_text,
    engine_of_object,
    text_of,
)
from langchain_sequrity.sqrt.verdict import Presets

MAX_NAME = 80


@dataclass(frozen=True)
class NamedPolicy:
    """A policy with the name that denials show; made by `named`.

    Attributes:
        name: The name.
        policy: The policy in any form.
    """

    name: str
    policy: AnyPolicy

    def compile(self) -> Engine:
        """Compile the policy; the reasons of its verdicts have its name."""
        (source,) = read_sources([self])
        return source.compile()


def named(name: str, policy: AnyPolicy) -> NamedPolicy:
    """Give a policy a name, for the denials of a combination.

    Args:
        name: One line of at most 80 characters.
        policy: The policy in any form, but not a list.

    Returns:
        A policy that is accepted wherever a policy is.

    Raises:
        UsageError: If the name is not such a line, or `policy` is a list.

    Example:
        ```python
        from langchain_sequrity import sqrt

        house = sqrt.named("organisation", 'tool "publish" { must deny always; }')
        (denied,) = sqrt.simulate([house, ""], [{"tool": "publish"}])
        assert denied.verdict.reasons[0].policy == "organisation"
        ```
    """
    is_line = isinstance(name, str) and name.strip() == name != "" and plain(name) == name
    if not is_line or len(name) > MAX_NAME or "`" in name:
        msg = (
            f"The name of a policy is one line of at most {MAX_NAME} characters without backticks, "
            f"not {plain(repr(name), limit=MAX_NAME)}."
        )
        raise UsageError(msg)
    if isinstance(policy, list | tuple):
        msg = f"`{name}` would name a list of policies. Name each policy of the list."
        raise UsageError(msg)
    return NamedPolicy(name, policy)


class Source(NamedTuple):
    """One policy of a combination.

    Attributes:
        name: Its name.
        is_named: Whether somebody gave it that name: the caller, or a file.
        policy: Its nodes; `policy.text` is its text.
        settings: The other fields of its `X-Policy`, as JSON.
    """

    name: str
    is_named: bool
    policy: Policy
    settings: Mapping[str, Any]

    @property
    def presets(self) -> Mapping[str, Any]:
        """The fields of its presets."""
        return self.settings.get("presets") or {}

    @property
    def default_denial(self) -> nodes.Strength | None:
        """How strongly it denies by default, if it does."""
        if self.presets.get("default_allow") is not False:
            return None
        is_hard = self.presets.get("default_allow_enforcement_level") == "hard"
        return "hard" if is_hard else "soft"

    def compile(self, *, dual_llm: bool = True) -> Engine:
        """Compile it; the reasons of its verdicts have its name."""
        presets = Presets.of_settings(self.settings, dual_llm=dual_llm)
        return replace(compile_policy(self.policy, presets), name=self.name)

    def declarations_of(self, node_type: type) -> Iterator[Any]:
        """Its declarations of one type, in source order."""
        return (node for node in self.policy.declarations if isinstance(node, node_type))


def one_line(text: str) -> str:
    """A rule or a regex for an error message."""
    return plain(" ".join(text.split()), limit=200)


def checks_of(policy: Policy) -> Iterator[nodes.CheckRule]:
    """The check rules of a policy, in source order."""
    for node in policy.declarations:
        if isinstance(node, nodes.ToolBlock):
            yield from node.checks


def read_sources(policies: Iterable[object]) -> tuple[Source, ...]:
    """Read the policies of a combination; lists and combinations within are flattened.

    Raises:
        UsageError: If there is no policy, one cannot be read here, or two have the same name.
        PolicySyntaxError: If one is not valid SQRT. The message names the policy; line and caret
            are those of its own text.
    """
    flat = _with_folders(list(_flattened(policies)))
    sources = tuple(_source(policy, number) for number, policy in enumerate(flat, 1))
    if not sources:
        msg = "A list of policies needs at least one policy; it is empty."
        raise UsageError(msg)
    names = [source.name for source in sources]
    for name in names:
        if names.count(name) > 1:
            msg = (
                f"Two policies are named `{name}`, so a denial could not tell which of them "
                'decided. Give each its own name: `sqrt.named("organisation", policy)`.'
            )
            raise UsageError(msg)
    return sources


def _with_folders(policies: Sequence[object]) -> list[object]:
    """The policies, where files of one name in several folders are named with their folders."""
    paths = {policy for policy in policies if isinstance(policy, Path)}
    names = [path.name for path in paths]
    return [
        NamedPolicy(_file_name("/".join(policy.parts[-2:])), policy)
        if isinstance(policy, Path) and names.count(policy.name) > 1
        else policy
        for policy in policies
    ]


def _file_name(name: str) -> str:
    return plain(name, limit=MAX_NAME).replace("`", "'")


def _flattened(policies: Iterable[object]) -> Iterator[object]:
    for policy in policies:
        if combined := sources_of(policy):
            yield from combined
        elif isinstance(policy, Sequence) and not isinstance(policy, str | bytes):
            yield from _flattened(policy)
        else:
            yield policy


def sources_of(policy: object) -> tuple[Source, ...]:
    """The policies of a combination, or of a header with one; empty for anything else."""
    combination: Any = (
        policy if hasattr(policy, "sources") else getattr(policy, "combination", None)
    )
    return () if combination is None else combination.sources


def _source(policy: object, number: int) -> Source:
    name, is_named = f"policy {number}", False
    if isinstance(policy, Source):
        # Only given names stay: "policy 1" may be another policy here.
        return policy if policy.is_named else policy._replace(name=name)
    if isinstance(policy, NamedPolicy):
        name, is_named, policy = policy.name, True, policy.policy
        if combined := sources_of(policy):
            if len(combined) > 1:
                msg = f"`{name}` would name several policies. Name each of them."
                raise UsageError(msg)
            return combined[0]._replace(name=name, is_named=True)
    elif isinstance(policy, Path):
        name, is_named = _file_name(policy.name), True
    try:
        text, settings = _read(policy, name)
        parsed = parse(text)
        check_policy_text(text)
    except PolicySyntaxError as error:
        message = str(error).removesuffix(f"\n{error.source}")
        msg = f"In the policy `{name}`: {message}"
        raise PolicySyntaxError(
            msg,
            line=error.line,
            column=error.column,
            source=error.source,
            expected=error.expected,
        ) from None
    return Source(name, is_named, parsed, settings)


def _read(policy: Any, name: str) -> tuple[str, Mapping[str, Any]]:
    """The text of a policy, and its settings.

    Raises:
        UsageError: If it is not a policy, or cannot be read here. The message names the policy.
    """
    if isinstance(policy, Policy):
        return policy.text, {}
    if not isinstance(policy, Engine) and callable(write := getattr(policy, "to_wire", None)):
        return _read_header(write(), name)
    try:
        if isinstance(policy, str | Path):
            return text_of(policy), {}
        engine = engine_of_object(policy)
    except PolicySyntaxError:
        raise
    except UsageError as error:
        msg = f"In the policy `{name}`: {error}"
        raise UsageError(msg) from None
    return engine.policy.text, _settings_of(engine.presets)


def _read_header(fields: Mapping[str, Any], name: str) -> tuple[str, Mapping[str, Any]]:
    """Read the fields of an `X-Policy`.

    Raises:
        UsageError: If some of its rules are unknown here.
    """
    codes = fields.get("codes") or {}
    unreadable = {
        "is in Cedar": codes.get("language") == "cedar",
        "has `auto_gen`, so the service writes rules that are unknown here": fields.get("auto_gen"),
    }
    for problem, applies in unreadable.items():
        if applies:
            msg = (
                f"The policy `{name}` {problem}, and policies are combined as SQRT text. Write its "
                "rules in SQRT, or use it alone."
            )
            raise UsageError(msg)
    settings = {key: value for key, value in fields.items() if key not in ("codes", "auto_gen")}
    return codes.get("code") or "", settings


def _settings_of(presets: Presets) -> Mapping[str, Any]:
    """The presets of an engine that differ from the service's defaults, as fields of `X-Policy`."""
    level = "hard" if presets.default_allow_hard else "soft"
    values_and_defaults: dict[str, tuple[object, object]] = {
        "default_allow": (presets.default_allow, Presets().default_allow),
        "default_allow_enforcement_level": (level, "soft"),
        "enable_llm_blocked_tag": (presets.llm_blocked is not None, True),
        "llm_blocked_tag_enforcement_level": (presets.llm_blocked or "hard", "hard"),
        "enable_non_executable_memory": (presets.non_executable_memory, True),
    }
    differing = {
        name: value for name, (value, default) in values_and_defaults.items() if value != default
    }
    settings: dict[str, Any] = {"presets": differing} if differing else {}
    return settings if presets.fail_fast else {**settings, "fail_fast": False}
