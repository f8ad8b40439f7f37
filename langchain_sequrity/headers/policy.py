"""`X-Policy`: the text of a policy, and the built-in policies."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, TypedDict, Unpack, cast

from pydantic import PrivateAttr, field_validator, model_validator

from langchain_sequrity.errors import UsageError
from langchain_sequrity.headers.base import (
    NOT_NULL,
    Flag,
    Header,
    HeaderModel,
    NameSet,
    Text,
    coerce,
    from_wire,
)
from langchain_sequrity.validation import describe_value

if TYPE_CHECKING:
    from rich.console import Group

    from langchain_sequrity.denials import Denial
    from langchain_sequrity.sqrt import Engine
    from langchain_sequrity.sqrt import Presets as EnginePresets
    from langchain_sequrity.sqrt.combination import Combination
    from langchain_sequrity.sqrt.compaction import Compact
    from langchain_sequrity.sqrt.nodes import Position


_QUOTED_RULE = re.compile(r"Its rule is `(?P<rule>[^`]+)`\.?")
PolicyMode = Literal["standard", "strict", "custom"]
PolicyLanguage = Literal["sqrt", "cedar"]
EnforcementLevel = Literal["soft", "hard"]


class PolicyCodes(HeaderModel):
    """The policy text.

    Example:
        ```python
        from langchain_sequrity.headers import PolicyCodes

        PolicyCodes(code='tool "send_mail" { must deny always; }', language="sqrt")
        ```
    """

    _where: ClassVar[str] = "`codes`"

    code: Annotated[Text | None, NOT_NULL] = None
    """The text; it may be empty. Server default: empty."""
    language: Annotated[PolicyLanguage | None, NOT_NULL] = None
    """Its language. Server default: `sqrt`."""


class BranchingMetaPolicy(HeaderModel):
    """Labels that may decide a branch of the planner's program; for mode `custom` only.

    Example:
        ```python
        from langchain_sequrity.headers import BranchingMetaPolicy

        BranchingMetaPolicy(mode="deny", tags={"untrusted"})
        ```
    """

    _where: ClassVar[str] = "`presets.branching_meta_policy`"

    mode: Annotated[Literal["allow", "deny"] | None, NOT_NULL] = None
    """`deny`: listed labels may not decide; `allow`: only they may. Server default: `deny`."""
    producers: Annotated[NameSet | None, NOT_NULL] = None
    """Producers on the list. Server default: none."""
    tags: Annotated[NameSet | None, NOT_NULL] = None
    """Tags on the list. Server default: none."""
    consumers: Annotated[NameSet | None, NOT_NULL] = None
    """Consumers on the list. Server default: none."""


class Presets(HeaderModel):
    """The built-in policies.

    Example:
        ```python
        from langchain_sequrity.headers import Presets

        Presets(default_allow=False, default_allow_enforcement_level="hard")
        ```
    """

    _where: ClassVar[str] = "`presets`"

    default_allow: Annotated[Flag | None, NOT_NULL] = None
    """The verdict on a call that no rule matches. Server default: true."""
    default_allow_enforcement_level: Annotated[EnforcementLevel | None, NOT_NULL] = None
    """The strength of that verdict. Server default: `soft`."""
    enable_non_executable_memory: Annotated[Flag | None, NOT_NULL] = None
    """Tag every tool result as non-executable; dual-LLM only. Server default: true."""
    enable_llm_blocked_tag: Annotated[Flag | None, NOT_NULL] = None
    """Keep data tagged `__llm_blocked` from the data model. Server default: true."""
    llm_blocked_tag_enforcement_level: Annotated[EnforcementLevel | None, NOT_NULL] = None
    """The strength of that denial. Server default: `hard`."""
    branching_meta_policy: Annotated[BranchingMetaPolicy | None, NOT_NULL] = None
    """Which labels may decide branches; dual-LLM only. Server default: deny nothing."""


class PolicyOptions(TypedDict, total=False):
    """Options of `PolicyHeader.from_sqrt` and `from_file`.

    They are fields of `PolicyHeader` and of `Presets`.
    """

    mode: PolicyMode | None
    auto_gen: bool | None
    fail_fast: bool | None
    extra: dict[str, Any]
    default_allow: bool
    default_allow_enforcement_level: EnforcementLevel
    enable_non_executable_memory: bool
    enable_llm_blocked_tag: bool
    llm_blocked_tag_enforcement_level: EnforcementLevel
    branching_meta_policy: BranchingMetaPolicy


class PolicyHeader(Header):
    """The header `X-Policy`.

    Example:
        ```python
        from langchain_sequrity.headers import PolicyHeader, Presets

        policy = PolicyHeader(
            codes='tool "send_mail" { should deny always; }',
            presets=Presets(default_allow=False),
        )
        same = PolicyHeader.from_sqrt(policy.codes.code, default_allow=False)
        assert policy == same
        ```
    """

    header_name: ClassVar[str] = "X-Policy"
    _where: ClassVar[str] = "`X-Policy`"
    _example: ClassVar[str] = '{"codes": {"code": "…"}}'

    mode: PolicyMode | None = None
    """How strict the service is in addition to the rules. Server default: `standard`."""
    codes: PolicyCodes | None = None
    """The policy text; a plain string is SQRT. Server default: empty."""
    auto_gen: Flag | None = None
    """Let the service write rules from tool descriptions; dual-LLM only. Server default: false."""
    fail_fast: Flag | None = None
    """Stop checking at the first hard denial. Server default: true."""
    presets: Presets | None = None
    """The built-in policies. Server default: see `Presets`."""

    _combination = PrivateAttr(default=cast("Any", None))  # see the property of that name

    if TYPE_CHECKING:  # type checkers cannot see that `codes` accepts a string

        def __init__(
            self,
            *,
            mode: PolicyMode | None = None,
            codes: PolicyCodes | str | None = None,
            auto_gen: bool | None = None,
            fail_fast: bool | None = None,
            presets: Presets | None = None,
            extra: dict[str, Any] = ...,
        ) -> None: ...

    @field_validator("codes", mode="before")
    @classmethod
    def _text_is_sqrt(cls, value: Any) -> Any:
        return {"code": value, "language": "sqrt"} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _is_read(self) -> Self:
        """Report an invalid policy now, not at the first call."""
        codes = self.codes
        if codes is not None and codes.code and codes.language != "cedar" and not self.auto_gen:
            # Only clients with a policy import the language.
            from langchain_sequrity.sqrt.policy_forms import check_policy_text  # noqa: PLC0415

            check_policy_text(codes.code)
        return self

    @classmethod
    def from_sqrt(cls, text: str, **options: Unpack[PolicyOptions]) -> Self:
        """Make a policy of SQRT text.

        Args:
            text: The policy.
            options: Fields of `PolicyHeader` (`mode`, `fail_fast`, …) and of `Presets`
                (`default_allow`, `branching_meta_policy`, …), all by name.

        Returns:
            The header.

        Raises:
            UsageError: If `text` is not a text.
            pydantic.ValidationError: For an unknown option or a wrong value.

        Example:
            ```python
            from langchain_sequrity.headers import PolicyHeader

            PolicyHeader.from_sqrt('tool "read" { must allow always; }', default_allow=False)
            ```
        """
        if not isinstance(text, str):
            from langchain_sequrity.sqrt.diagnostics import not_a_text  # noqa: PLC0415 - for errors only

            raise not_a_text(text)
        return cls._from_text(text, "sqrt", dict(options))

    @classmethod
    def from_file(
        cls,
        path: str | Path,
        *,
        language: PolicyLanguage | None = None,
        **options: Unpack[PolicyOptions],
    ) -> Self:
        """Make a policy of a UTF-8 file.

        Args:
            path: The file.
            language: Its language; by default `cedar` for `*.cedar`, else `sqrt`.
            options: As for `from_sqrt`.

        Returns:
            The header.

        Raises:
            UsageError: If the file cannot be read or is not UTF-8.
            pydantic.ValidationError: For an unknown option or a wrong value.
        """
        from langchain_sequrity.sqrt.policy_forms import read_file  # noqa: PLC0415 - for files only

        path = Path(path)
        chosen = language or ("cedar" if path.suffix == ".cedar" else "sqrt")
        return cls._from_text(read_file(path), chosen, dict(options))

    @classmethod
    def _from_text(cls, text: str, language: PolicyLanguage, options: dict[str, Any]) -> Self:
        presets = {name: options.pop(name) for name in Presets.wire_names() if name in options}
        if presets:
            options["presets"] = Presets(**presets)
        return cls(codes=PolicyCodes(code=text, language=language), **options)

    @classmethod
    def _from_other(cls, value: object) -> Self:
        if isinstance(value, Path):
            return cls.from_file(value)
        # Only clients with a policy import the language.
        from langchain_sequrity.sqrt import Policy  # noqa: PLC0415
        from langchain_sequrity.sqrt.policy_forms import check_is_sqrt  # noqa: PLC0415

        if isinstance(value, str):
            return cls.from_sqrt(check_is_sqrt(value))
        if isinstance(value, Policy):
            return cls.from_sqrt(value.text)
        if isinstance(value, list | tuple):
            return cls._of_list(value)
        # Only clients with several policies import it.
        from langchain_sequrity.sqrt.combination import (  # noqa: PLC0415
            Combination,
            NamedPolicy,
            combine,
        )

        if isinstance(value, Combination | NamedPolicy):
            return cls._of_combination(combine(value))
        msg = (
            "`X-Policy` takes a `PolicyHeader`, SQRT text, a `Policy` of `sqrt`, a `pathlib.Path` "
            "to a file, a dict, an object with `dump_for_headers`, or a list of these; got "
            f"{describe_value(value)}."
        )
        raise UsageError(msg)

    @classmethod
    def _of_list(cls, policies: Sequence[object]) -> Self:
        """The policy of a list: its only one unchanged, several combined."""
        if len(policies) == 1:
            return coerce(cls, policies[0])
        # Only clients with several policies import it.
        from langchain_sequrity.sqrt.combination import combine  # noqa: PLC0415

        return cls._of_combination(combine(*map(cls._for_combination, policies)))

    @classmethod
    def _for_combination(cls, policy: Any) -> Any:
        """A policy in a form that `combine` takes: fields and objects of the SDK become headers."""
        if isinstance(policy, list | tuple):
            return [cls._for_combination(element) for element in policy]
        is_fields = isinstance(policy, Mapping) or hasattr(policy, "dump_for_headers")
        return coerce(cls, policy) if is_fields else policy

    @classmethod
    def _of_combination(cls, combination: "Combination") -> Self:
        header = from_wire(cls, combination.to_wire(), unknown="keep")
        if combination.has_names:
            header._combination = combination  # noqa: SLF001 - of this class
        return header

    @property
    def combination(self) -> "Combination | None":
        """The policies behind this one, if it combines or names any.

        A copy with another text or other fields is a policy of its own.
        """
        combination: Combination | None = self._combination
        if combination is None or self.to_wire() != combination.to_wire():
            return None
        return combination

    def compile(self, *, dual_llm: bool = True) -> "Engine":
        """Compile the policy, to decide in this process with the engine of the local server.

        Args:
            dual_llm: Whether it is for a dual-LLM session; some built-in policies are only for
                these.

        Returns:
            An engine.

        Raises:
            UsageError: If some rules are unknown in this process: Cedar text, or `auto_gen`.
            PolicySyntaxError: If the text is not a valid SQRT policy.

        Example:
            ```python
            from langchain_sequrity.headers import PolicyHeader
            from langchain_sequrity.labels import Labels
            from langchain_sequrity.sqrt import Call

            policy = PolicyHeader.from_sqrt("", default_allow=False)
            assert not policy.compile().decide(Call("ship", {}), Labels()).allowed
            ```
        """
        # Few programs that send a policy also decide with it.
        from langchain_sequrity.sqrt import compile_policy  # noqa: PLC0415

        if self.codes is not None and self.codes.language == "cedar":
            msg = "A policy in Cedar cannot be compiled here. Write it in SQRT."
            raise UsageError(msg)
        if self.auto_gen:
            msg = (
                "With `auto_gen` the service writes rules that are unknown here. Leave it out, or "
                "generate the policy first with `PolicyGenTool`."
            )
            raise UsageError(msg)
        if self.combination is not None:
            return self.combination.compile(dual_llm=dual_llm)
        code = (self.codes and self.codes.code) or ""
        return compile_policy(code, engine_presets(self, dual_llm=dual_llm))

    @property
    def uses_session(self) -> bool:
        """Whether any rule reads or changes labels of the session.

        `True` also if the rules are unknown in this process: Cedar text, `auto_gen`, or a text that
        only the service can read.
        """
        try:
            return self.compile().uses_session
        except UsageError:
            return True

    def compacted(self) -> Self:
        """A copy whose SQRT text has no comments and no unnecessary white space.

        Returns:
            The copy, or the policy itself if nothing changes. Cedar text stays as it is.
        """
        compact = self._compact()
        if self.codes is None or compact is None or compact.text == compact.author:
            return self
        codes = self.codes.model_copy(update={"code": compact.text})
        return self.model_copy(update={"codes": codes})

    def author_place(self, line: int, column: int | None = None) -> "Position | None":
        r"""The place in the author's text that corresponds to a place in the sent text.

        The policy is sent without comments and unnecessary white space, and the service names
        places in that text.

        Args:
            line: The line that the service names, from 1.
            column: The column, from 1, if it names one.

        Returns:
            Line and column in the text of `codes`, or `None` if they are unknown: without a
            column, one line of the sent text may correspond to several lines of the author. For
            combined policies, line and column in the text of the policy at that place.

        Example:
            ```python
            from langchain_sequrity.headers import PolicyHeader

            policy = PolicyHeader.from_sqrt('// cellar\n\ntool "lend" {\n    must deny always;\n}')
            assert policy.compacted().codes.code == 'tool "lend" {must deny always;}'
            assert policy.author_place(1, 14) == (4, 5)
            assert policy.author_place(1) is None
            ```
        """
        compact, combination = self._compact(), self.combination
        position = None if compact is None else compact.author_place(line, column)
        if position is None or combination is None:
            return position
        source_position = combination.place(position)
        return None if source_position is None else source_position.at

    def with_author_rule(self, denial: "Denial") -> "Denial":
        """A denial of the service with the author's rule and its place, not those that were sent.

        Args:
            denial: The denial. For combined policies its rule is found by its place; without a
                place, by the rule's text or its doc comment, if only one policy has it. A denial
            that already names a policy stays: it is that of the key on the server.
        """
        if denial.policy is not None:
            return denial
        compact, combination = self._compact(), self.combination
        position = None
        if compact is not None and denial.line is not None:
            position = compact.author_place(denial.line, denial.column)
        if combination is not None:
            quoted = _QUOTED_RULE.fullmatch(denial.reason or "")
            if denial.rule is None and quoted:  # a text without fields names only the rule
                denial = replace(denial, rule=quoted["rule"], reason=None)
            origin = combination.origin_of(denial.tool, denial.rule, denial.reason, position)
            if denial.kind not in ("policy", "uncertain"):
                origin = None
            if origin is not None:
                line, column = (None, None) if origin.at is None else origin.at
                rule = " ".join(origin.rule.split()) if denial.rule else None
                return replace(denial, rule=rule, line=line, column=column, policy=origin.policy)
            position = None
        if denial.line is None:
            return denial
        line, column = (None, None) if position is None else position
        return replace(denial, line=line, column=column)

    def author_text(self, text: str) -> str:
        r"""A text of the service about the policy, with the places of the author's text.

        Args:
            text: Any text. It has places in the form `line 1, column 14`, with or without the line
                and a caret below it.

        Returns:
            The text; if it names one place, with the author's line below it.

        Example:
            ```python
            from langchain_sequrity.headers import PolicyHeader

            policy = PolicyHeader.from_sqrt('tool "lend" {\n    must deny  when x.value == 1;\n}')
            assert policy.author_text("`x` is not known (line 1, column 29)") == (
                "`x` is not known (line 2, column 21)\n"
                "      must deny  when x.value == 1;\n"
                "                      ^"
            )
            ```
        """
        compact, combination = self._compact(), self.combination
        if compact is None:
            return text
        return compact.author_text(text, None if combination is None else combination.place)

    def _compact(self) -> "Compact | None":
        """The SQRT text as it is sent; `None` without SQRT text."""
        if self.codes is None or self.codes.language == "cedar" or not self.codes.code:
            return None
        # Only clients with a policy import the language.
        from langchain_sequrity.sqrt.compaction import compacted  # noqa: PLC0415

        return compacted(self.codes.code)

    def _repr_html_(self) -> str:
        """The text in colour and a table of the other fields, for notebooks."""
        from langchain_sequrity.headers.policy_view import policy_html  # noqa: PLC0415 - for display only

        return policy_html(self.to_wire())

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # noqa: FBT001, ARG002 - IPython's
        """The text and a table of the other fields, for IPython in a terminal."""
        from langchain_sequrity.headers.policy_view import policy_text  # noqa: PLC0415 - for display only

        printer.text(policy_text(self.to_wire()))

    def __rich__(self) -> "Group":
        """The text in colour and a table of the other fields, for rich."""
        from langchain_sequrity.headers.policy_view import policy_rich  # noqa: PLC0415 - for display only

        return policy_rich(self.to_wire())


def engine_presets(policy: PolicyHeader, *, dual_llm: bool) -> "EnginePresets":
    """The built-in policies in the engine's form.

    Args:
        policy: The header.
        dual_llm: Whether the session is dual-LLM; some built-in policies are only for these.

    Returns:
        The presets, with the service's defaults for fields that the header does not set.
    """
    from langchain_sequrity.sqrt import Presets as EnginePresets  # noqa: PLC0415 - as in `compile`

    return EnginePresets.of_settings(policy.to_wire(), dual_llm=dual_llm)
