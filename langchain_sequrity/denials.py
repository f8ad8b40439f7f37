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
_NAMES = 5
_BY_RULE = ("policy", "uncertain")


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
        line: The line of the rule in the policy as its author wrote it, from 1.
        column: Its column, from 1.
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

    @property
    def may_be_approved(self) -> bool:
        """Whether a human may be asked: only where a soft rule denies for sure."""
        return self.kind == "policy" and self.strength == "soft" and self.certain is True

    @property
    def is_policys(self) -> bool:
        """Whether the policy has the say: not of calls that wait, fail, or that a human rejects."""
        return self.kind in ("policy", "branch", "content", "uncertain")

    @property
    def text(self) -> str:
        """The denial in one sentence, safe to print and without a value of the call."""
        said = f"{self._said}{self._because}"
        return said if said.endswith(("!", "?")) else f"{said}."

    @property
    def question(self) -> str:
        """What a human is told who may approve the call; safe to print."""
        rule = ""
        if self.reason and self.rule:
            rule = f" Its rule is {self._rule}."
        return f"{self.text}{rule}{self._origins} You may approve this call, once."

    @property
    def _call(self) -> str:
        if self.tool is None:
            return "a step of the program"
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
        return f": its rule is {self._rule}" if self.rule and self.kind in _BY_RULE else ""

    @property
    def _rule(self) -> str:
        rule = plain(" ".join((self.rule or "").split()), limit=_SHOWN).removesuffix(";")
        return f"`{rule}`" if self.line is None else f"`{rule}` (line {self.line} of the policy)"

    @property
    def _origins(self) -> str:
        """What is known of where the arguments come from, in words."""
        told: dict[str, list[str]] = {}
        for name, meta in (self.labels or {}).items():
            if origin := _origin(meta):
                told.setdefault(origin, []).append(f"`{plain(name, limit=_NAME)}`")
        return "".join(f" {_listed(names)}: {origin}." for origin, names in told.items())

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


def _origin(meta: Mapping[str, Sequence[str]]) -> str:
    """Labels in words; empty for data without any."""
    said = []
    if producers := _given(meta.get("producers")):
        said.append(f"made of what {_names(producers)} returned")
    if tags := _given(meta.get("tags")):
        said.append(f"tagged {_names(tags)}")
    consumers = list(meta.get("consumers") or ())
    if consumers != ["*"]:
        said.append(f"for {_names(consumers)} only" if consumers else "for nobody")
    return ", ".join(said)


def _given(names: Sequence[str] | None) -> list[str]:
    """Names without those that the service gives of itself, which say nothing of the data."""
    return [name for name in names or () if not name.startswith("__")]


def _names(names: Sequence[str]) -> str:
    more = [f"{len(names) - _NAMES} more"] if len(names) > _NAMES else []
    return _listed([*(f"`{plain(name, limit=_NAME)}`" for name in names[:_NAMES]), *more])


def _listed(items: Sequence[str]) -> str:
    *others, last = items
    return f"{', '.join(others)} and {last}" if others else last


def _phrase(text: str) -> str:
    """Words as a part of a sentence that ends behind them."""
    return plain(" ".join(text.split()), limit=_SHOWN).removesuffix(".")


def _capital(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"
