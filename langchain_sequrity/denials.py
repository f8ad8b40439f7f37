"""A denial as data, and the one sentence that is made of it.

Whatever denies (the service, the local server, `PolicyMiddleware`, a human) fills these fields, and
whatever tells of it (exceptions, messages, states, questions to humans, assertions) reads them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Final, Literal, Self

from langchain_sequrity.display import plain

__all__ = ["Denial"]

NOT_REPORTED: Final = "not reported"
Kind = Literal[
    "policy", "branch", "content", "uncertain", "failed", "waits", "withheld", "rejected"
]
_SHOWN = 300
_NAME = 80


@dataclass(frozen=True, slots=True)
class Denial:
    """Why a call was not made, or its result not shown. `None` stands for what is not reported.

    Attributes:
        tool: The tool; `None` also where it is no call that was denied.
        kind: `policy`: a rule denies it. `branch`: data that the policy forbids to decide a branch
            of the program. `content`: a content classifier or blocker struck. `uncertain`: the
            policy allows it, but not for sure. `failed`: it could not be checked. `waits`: what the
            policy says hangs on another call of the same message. `withheld`: it was made, and its
            result is not to be trusted. `rejected`: a human was asked and said no.
        strength: `hard` or `soft`.
        certain: Whether every reading of the policy denies it (`docs/policies.md`, In doubt).
        rule: The rule that decided, as written, or the name of a preset.
        line: The line of the rule in the policy, from 1.
        reason: The reason in words: the rule's `///` comment, or what the service says.
        doubt: If it is not certain, why not, as what follows "because".
        arguments: The call's arguments.
        labels: The labels of each argument: producers, consumers and tags.
        node: The node of a `LangGraphExecutor`'s graph behind the tool (of a router, the node that
            it follows).
        is_router: Whether the tool is that node's router.
        objection: What a human said who rejected it.

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
    strength: Literal["hard", "soft"] | None = None
    certain: bool | None = None
    rule: str | None = None
    line: int | None = None
    reason: str | None = None
    doubt: str | None = None
    arguments: Mapping[str, Any] | None = None
    labels: Mapping[str, Mapping[str, Sequence[str]]] | None = None
    node: str | None = None
    is_router: bool = False
    objection: str | None = None

    @property
    def may_be_approved(self) -> bool:
        """Whether a human may be asked: only where a soft rule denies for sure."""
        return self.kind == "policy" and self.strength == "soft" and self.certain is True

    @property
    def text(self) -> str:
        """The denial in one sentence, safe to print and without a value of the call."""
        return f"{self._said}{self._because}."

    @property
    def _call(self) -> str:
        if self.tool is None:
            return "the turn" if self.node is None else f"a step of {self._place}"
        place = "" if self.node is None else f" ({self._place})"
        return f"the call of `{plain(self.tool, limit=_NAME)}`{place}"

    @property
    def _place(self) -> str:
        return f"{'the router after ' * self.is_router}node `{plain(self.node or '', limit=_NAME)}`"

    @property
    def _said(self) -> str:
        call = self._call
        because = f", because {_phrase(self.doubt)}" if self.doubt else ""
        doubt = f" in doubt{because}" if self.certain is False else ""
        said = {
            "content": f"A content check denied {call}",
            "uncertain": f"It is in doubt whether the policy allows {call}{because}",
            "failed": f"{_capital(call)} could not be checked against the policy",
            "waits": f"{_capital(call)} has to wait",
            "withheld": f"{_capital(call)} was made, and its result is withheld",
            "rejected": f"A human rejected {call}",
        }
        return said.get(self.kind, f"The policy denied {call}{doubt}")

    @property
    def _because(self) -> str:
        told = self.reason if self.kind != "rejected" else self.objection
        if told and told.strip():
            return f": {_phrase(told)}"
        if self.rule and self.kind in ("policy", "uncertain"):
            where = "" if self.line is None else f" (line {self.line} of the policy)"
            return f": its rule is `{plain(' '.join(self.rule.split()), limit=_SHOWN)}`{where}"
        return ""

    def with_call(
        self, arguments: Mapping[str, Any], labels: Mapping[str, Mapping[str, Sequence[str]]]
    ) -> Self:
        """The denial with the call's arguments and their labels."""
        return replace(self, arguments=arguments, labels=labels)

    def to_json(self) -> dict[str, Any]:
        """The fields that say something, as a JSON object."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> Self:
        """A denial of what `to_json` wrote; other keys are left aside."""
        return cls(**{one.name: facts[one.name] for one in fields(cls) if one.name in facts})


def _phrase(text: str) -> str:
    """Words as a part of a sentence that ends behind them."""
    return plain(" ".join(text.split()), limit=_SHOWN).removesuffix(".")


def _capital(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"
