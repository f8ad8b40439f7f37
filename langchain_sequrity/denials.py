"""A denial as data, and its text.

The service, the local server, `PolicyMiddleware` and humans produce denials. Exceptions, messages,
states, questions to humans and assertions show them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final, Literal, Self

from langchain_sequrity.display import enumeration, plain

__all__ = ["Denial"]

NOT_REPORTED: Final = "not reported"
Kind = Literal[
    "policy", "branch", "content", "uncertain", "failed", "waits", "withheld", "rejected"
]
_MAX_TEXT = 300
_MAX_NAME = 80
_MAX_NAMES = 5
_BY_RULE = ("policy", "uncertain")


@dataclass(frozen=True, slots=True)
class Denial:
    """Why a call was not made, or its result not shown. `None` means that a fact is not reported.

    Attributes:
        tool: The tool; also `None` if the denial is not about a call.
        kind: `policy`: a rule denies the call. `branch`: the policy forbids a branch on this data.
            `content`: a content classifier or blocker denies it. `uncertain`: the policy allows it
            only in some readings. `failed`: it could not be checked. `waits`: the verdict depends
            on another call of the same message. `withheld`: it was made, but its result is not
            trusted. `rejected`: a human rejected it.
        strength: `hard` or `soft`.
        certain: Whether every reading of the policy denies it (`docs/policies.md`, What is in
            doubt).
        rule: The rule that decided, as written, or the name of a preset.
        line: The line of the rule in the author's policy, from 1.
        column: Its column, from 1.
        reason: The reason in words: the rule's `///` comment, or the text of the service.
        doubt: Why the denial is not certain, as a phrase that follows "because".
        arguments: The call's arguments.
        labels: The labels of each argument: producers, consumers and tags.
        node: The node behind the tool in a graph of `LangGraphExecutor`. For a router, the node
            before it.
        is_router: Whether the tool is that node's router.
        objection: The message of the human who rejected the call.
        policy: The name of the policy that decided, if several are combined. `rule`, `line` and
            `column` are those of that policy.

    Example:
        ```python
        from langchain_sequrity.denials import Denial

        denial = Denial("pay", strength="hard", reason="large sums need a signature")
        assert denial.text == "The policy denied the call of `pay`: large sums need a signature."
        assert Denial.from_json(denial.to_json()) == denial
        ```
    """

    tool: str | None = None
    kind: Kind = "policy"
    strength: Literal["soft", "hard"] | None = None
    certain: bool | None = None
    rule: str | None = None
    line: int | None = None
    column: int | None = None
    reason: str | None = None
    doubt: str | None = None
    arguments: Mapping[str, Any] | None = None
    labels: Mapping[str, Mapping[str, Sequence[str]]] | None = None
    node: str | None = None
    is_router: bool = False
    objection: str | None = None
    policy: str | None = None

    @property
    def may_be_approved(self) -> bool:
        """Whether a human may approve the call: only after a certain, soft denial by a rule."""
        return self.kind == "policy" and self.strength == "soft" and self.certain is True

    @property
    def is_policys(self) -> bool:
        """Whether the policy decided. It did not if a call waits, fails, or a human rejects it."""
        return self.kind in ("policy", "branch", "content", "uncertain")

    @property
    def text(self) -> str:
        """The denial in one sentence: safe to print, and without values of the call."""
        text = f"{self._claim}{self._because}"
        return text if text.endswith(("!", "?")) else f"{text}."

    @property
    def question(self) -> str:
        """The question for a human who may approve the call; safe to print."""
        rule = f" Its rule is {self._rule}." if self.reason and self.rule else ""
        return f"{self.text}{rule}{self._origins} You may approve this call, once."

    @property
    def _call(self) -> str:
        if self.tool is None:
            return "a step of the program"
        call = f"the call of `{plain(self.tool, limit=_MAX_NAME)}`"
        if self.node is None:
            return call
        router = "the router after " if self.is_router else ""
        return f"{call} ({router}node `{plain(self.node, limit=_MAX_NAME)}`)"

    @property
    def _claim(self) -> str:
        call = self._call
        because = f", because {_phrase(self.doubt)}" if self.doubt else ""
        doubt = f" in doubt{because}" if self.certain is False else ""
        claims = {
            "content": f"A content check denied {call}",
            "uncertain": f"It is in doubt whether {self._policy} allows {call}{because}",
            "failed": f"{_capital(call)} could not be checked against the policy",
            "waits": f"{_capital(call)} has to wait",
            "withheld": f"{_capital(call)} was made, and its result is withheld",
            "rejected": f"A human rejected {call}",
        }
        return claims.get(self.kind, f"{_capital(self._policy)} denied {call}{doubt}")

    @property
    def _policy(self) -> str:
        return f"the policy {self._name_of_policy}".rstrip()

    @property
    def _name_of_policy(self) -> str:
        return f"`{plain(self.policy, limit=_MAX_NAME)}`" if self.policy else ""

    @property
    def rule_as_reason(self) -> str | None:
        """The rule that decided, as a phrase: the reason of a rule that has no comment."""
        return f"its rule is {self._rule}" if self.rule and self.kind in _BY_RULE else None

    @property
    def _because(self) -> str:
        reason = self.reason if self.kind != "rejected" else self.objection
        if reason and reason.strip():
            return f": {_phrase(reason)}"
        return f": {self.rule_as_reason}" if self.rule_as_reason else ""

    @property
    def _rule(self) -> str:
        rule = plain(" ".join((self.rule or "").split()), limit=_MAX_TEXT).removesuffix(";")
        if self.line is None:
            return f"`{rule}`"
        return f"`{rule}` (line {self.line} of {self._name_of_policy or 'the policy'})"

    @property
    def _origins(self) -> str:
        """The origins of the arguments in words, if they are known."""
        origins: dict[str, list[str]] = {}
        for name, meta in (self.labels or {}).items():
            if origin := _origin(meta):
                origins.setdefault(origin, []).append(f"`{plain(name, limit=_MAX_NAME)}`")
        return "".join(f" {enumeration(names)}: {origin}." for origin, names in origins.items())

    def with_call(
        self, arguments: Mapping[str, Any], labels: Mapping[str, Mapping[str, Sequence[str]]]
    ) -> Self:
        """The denial with the call's arguments and their labels."""
        return replace(self, arguments=arguments, labels=labels)

    def to_json(self) -> dict[str, Any]:
        """The fields other than `None`, as a JSON object."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> Self:
        """Read a denial from `facts`, the output of `to_json`. Other keys are ignored."""
        return cls(**{f.name: facts[f.name] for f in fields(cls) if f.name in facts})


def _origin(meta: Mapping[str, Sequence[str]]) -> str:
    """Labels in words; empty for data without any."""
    parts = []
    if producers := _without_reserved(meta.get("producers")):
        parts.append(f"made of what {_quoted_names(producers)} returned")
    if tags := _without_reserved(meta.get("tags")):
        parts.append(f"tagged {_quoted_names(tags)}")
    consumers = list(meta.get("consumers") or ())
    if consumers != ["*"]:
        parts.append(f"for {_quoted_names(consumers)} only" if consumers else "for nobody")
    return ", ".join(parts)


def _without_reserved(names: Sequence[str] | None) -> list[str]:
    """Names without those of the service itself, which are unrelated to the data."""
    return [name for name in names or () if not name.startswith("__")]


def _quoted_names(names: Sequence[str]) -> str:
    more = [f"{len(names) - _MAX_NAMES} more"] if len(names) > _MAX_NAMES else []
    return enumeration(
        [*(f"`{plain(name, limit=_MAX_NAME)}`" for name in names[:_MAX_NAMES]), *more]
    )


def _phrase(text: str) -> str:
    """A text as the end of a sentence, without its full stop."""
    return plain(" ".join(text.split()), limit=_MAX_TEXT).removesuffix(".")


def _capital(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"
