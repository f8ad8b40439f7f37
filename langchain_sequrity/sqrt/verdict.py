"""Votes to a verdict (`docs/behaviour.md`, V1 to V3), and a verdict to a denial."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

from langchain_sequrity.denials import Denial
from langchain_sequrity.display import plain
from langchain_sequrity.sqrt.context import Call
from langchain_sequrity.sqrt.matchers import Truth
from langchain_sequrity.sqrt.nodes import Effect, Position, Strength

REASONS_SHOWN = 5
DEFAULT_RULE, NO_RULE_DECIDES = "default_allow", "no rule decides"
"""The preset that decides without a rule, and its reason."""


@dataclass(frozen=True, slots=True)
class Presets:
    """The built-in policies and how checking proceeds; the defaults are the service's.

    Attributes:
        default_allow: Whether a call that no rule decides is allowed.
        default_allow_hard: Whether that default is reported as hard.
        fail_fast: Whether counting stops at the first hard denial. It changes the counters and
            the reasons, never whether a call is allowed.
        llm_blocked: The strength of the denial of `parse_with_ai` when an argument has the tag
            `__llm_blocked`; `None` switches it off.
        non_executable_memory: Whether each result gets the tag `__non_executable`. The service
            also counts this preset as an allowing vote for `parse_with_ai`.
    """

    default_allow: bool = True
    default_allow_hard: bool = False
    fail_fast: bool = True
    llm_blocked: Strength | None = "hard"
    non_executable_memory: bool = True

    @classmethod
    def of_settings(cls, settings: Mapping[str, Any], *, dual_llm: bool) -> Self:
        """The built-in policies that an `X-Policy` sets.

        Args:
            settings: The fields of the header as JSON.
            dual_llm: Whether the session is dual-LLM; some built-in policies are only for these.
        """
        presets: Mapping[str, Any] = settings.get("presets") or {}
        blocked: Strength = presets.get("llm_blocked_tag_enforcement_level") or "hard"
        is_memory = presets.get("enable_non_executable_memory") is not False
        return cls(
            default_allow=presets.get("default_allow") is not False,
            default_allow_hard=presets.get("default_allow_enforcement_level") == "hard",
            fail_fast=settings.get("fail_fast") is not False,
            llm_blocked=None if presets.get("enable_llm_blocked_tag") is False else blocked,
            non_executable_memory=dual_llm and is_memory,
        )


@dataclass(frozen=True, slots=True)
class Reason:
    """A rule that decided.

    Attributes:
        rule: The rule as written, or the name of a preset.
        at: Its place in the policy, or `None` for a preset.
        description: Its doc comment, or the purpose of the preset.
        strength: `hard` or `soft`.
        verdict: `allow` or `deny`. A hard allow whose condition failed has `deny` here.
        certain: Whether its condition was certain.
        unmet: Whether it is a hard allow whose condition failed.
        absent: If its condition is in doubt, the arguments in it that the call does not have.
        doubt: Why its condition is in doubt, as a clause without values of the call; empty if it
            is certain. If all reasons are certain but the verdict is not, the first reason names
            another rule here that would change the verdict if it applied.
        policy: The name of the policy in a combination; `rule` and `at` are those of that policy.
    """

    rule: str
    at: Position | None
    description: str
    strength: Strength
    verdict: Effect
    certain: bool = True
    unmet: bool = False
    absent: tuple[str, ...] = ()
    doubt: str = ""
    policy: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision of a policy on a call.

    Attributes:
        allowed: Whether the call may be made.
        strength: `hard` or `soft`.
        certain: Whether the service decides the same under every reading of what is unknown.
        n_allowed: Allowing votes, including the default.
        n_denied: Denying votes.
        reasons: The rules that decided: first those with certain conditions, then in source order.
        tool: The tool that was to be called.
    """

    allowed: bool
    strength: Strength
    certain: bool
    n_allowed: int
    n_denied: int
    reasons: tuple[Reason, ...]
    tool: str

    @property
    def final_verdict(self) -> str:
        """The verdict in one word, such as `hard_denied` or `soft_allowed`."""
        return f"{self.strength}_{'allowed' if self.allowed else 'denied'}"

    def words(self, *, columns: bool = False) -> str:
        """The verdict and its reasons as a sentence or two, safe to print.

        Args:
            columns: Whether places have columns. In a compacted policy only line and column
                together give the place in the author's text.
        """
        outcome = "allowed" if self.allowed else "denied"
        doubt = "" if self.certain else " The service may see this differently."
        because = "; ".join(
            _words(reason, columns=columns) for reason in self.reasons[:REASONS_SHOWN]
        )
        if (omitted := len(self.reasons) - REASONS_SHOWN) > 0:
            because = f"{because}; and {omitted} more"
        tool = plain(self.tool, limit=80)
        return f"The call of `{tool}` is {outcome} ({self.strength}): {because}.{doubt}"


def _words(reason: Reason, *, columns: bool) -> str:
    column = f", column {reason.at.column}" if reason.at and columns else ""
    of_policy = f" of `{reason.policy}`" if reason.policy else ""
    where = f" (line {reason.at.line}{column}{of_policy})" if reason.at else of_policy
    if reason.unmet:
        how = "is not met" if reason.certain else "may not be met"
    else:
        how = "applies" if reason.certain else "may apply"
    if reason.doubt:
        how = f"{how} (in doubt, because {reason.doubt})"
    why = f" — {plain(reason.description, limit=200)}" if reason.description else ""
    return f"`{plain(' '.join(reason.rule.split()), limit=200)}`{where} {how}{why}"


class Vote(NamedTuple):
    """The vote of one rule.

    Attributes:
        reason: The rule.
        rank: Priority, and whether it has a condition: the order of soft rules.
        holds: Whether it applies.
        fails: For a hard allow, whether only its condition keeps it from applying.
    """

    reason: Reason
    rank: tuple[int | float, bool]
    holds: Truth
    fails: Truth


class _Ruling(NamedTuple):
    allowed: bool
    strength: Strength
    votes: Sequence[Vote]

    @property
    def is_unmet(self) -> bool:
        """Whether the call is denied because the condition of a `must allow` failed."""
        return not self.allowed and any(vote.reason.verdict == "allow" for vote in self.votes)


def decide_by_votes(tool: str, votes: Iterable[Vote], presets: Presets, allowing: int) -> Verdict:
    """Make the verdict.

    Args:
        tool: The tool that was to be called.
        votes: The votes of presets and rules, in order.
        presets: The default, and whether to stop at the first hard denial.
        allowing: The number of presets that allow unconditionally.
    """
    cast: list[Vote] = []
    allowing += presets.default_allow
    denying = int(not presets.default_allow)
    doubtful = stopped = False
    for vote in votes:  # until a certain hard denial; counted up to the first hard denial
        cast.append(vote)
        reason, _, holds, fails = vote
        doubtful = doubtful or holds is None or fails is None
        if reason.verdict == "allow":
            allowing += holds is True and not stopped
        elif holds is not False:
            denying += not stopped
            if presets.fail_fast and reason.strength == "hard":
                stopped = True
                if holds:
                    break
    ruling = _decide(cast, presets)
    if ruling.is_unmet:
        denying += len(ruling.votes)
    certain = not doubtful or _same_ruling(ruling, _decide(_optimistic(cast), presets), presets)
    reasons = _reasons(ruling, presets)
    return Verdict(ruling.allowed, ruling.strength, certain, allowing, denying, reasons, tool)


def joined_verdict(verdicts: Sequence[Verdict]) -> Verdict:
    """The verdict of several policies, of which each can deny.

    Args:
        verdicts: The verdict of each on the same call.

    Returns:
        The verdict, with the reasons of the strongest denials. Without a denial it has the reasons
        of all. The first reason is the one to report: it is certain if the denial is, and in doubt
        if a policy allows in doubt.
    """
    denials = [verdict for verdict in verdicts if not verdict.allowed]
    is_hard = (any if denials else all)(
        verdict.strength == "hard" for verdict in denials or verdicts
    )
    strength: Strength = "hard" if is_hard else "soft"
    deciding = [verdict for verdict in denials if verdict.strength == strength] or [*verdicts]
    deciding.sort(key=lambda verdict: verdict.certain is not bool(denials))
    return Verdict(
        allowed=not denials,
        strength=strength,
        certain=deciding[0].certain,
        n_allowed=sum(verdict.n_allowed for verdict in verdicts),
        n_denied=sum(verdict.n_denied for verdict in verdicts),
        reasons=tuple(reason for verdict in deciding for reason in verdict.reasons),
        tool=deciding[0].tool,
    )


def _decide(votes: Sequence[Vote], presets: Presets) -> _Ruling:
    """V1, where a denial in doubt applies and an allowance in doubt does not."""
    hard: list[Vote] = []
    soft: list[Vote] = []
    unmet: list[Vote] = []
    allows = False
    for vote in votes:
        is_allowing = vote.reason.verdict == "allow"
        if vote.holds is True or (vote.holds is None and not is_allowing):
            (hard if vote.reason.strength == "hard" else soft).append(vote)
            allows = allows or is_allowing
        elif vote.fails is not False:
            unmet.append(vote)
    if denials := _denials(hard):
        return _Ruling(False, "hard", denials[:1] if presets.fail_fast else denials)  # noqa: FBT003 - a tuple
    if unmet and not allows:
        unmet.sort(key=lambda vote: vote.fails is not True)
        return _Ruling(False, "hard", unmet)  # noqa: FBT003 - a tuple
    if hard:
        return _Ruling(True, "hard", hard)  # noqa: FBT003 - a tuple
    if soft:
        top = max(vote.rank for vote in soft)
        first = [vote for vote in soft if vote.rank == top]
        denials = _denials(first)
        return _Ruling(not denials, "soft", denials or first)
    return _Ruling(presets.default_allow, "hard" if presets.default_allow_hard else "soft", ())


def _denials(votes: Iterable[Vote]) -> list[Vote]:
    """Those that deny, first those with certain conditions."""
    denials = [vote for vote in votes if vote.reason.verdict == "deny"]
    return sorted(denials, key=lambda vote: vote.holds is not True)


def _optimistic(votes: list[Vote]) -> list[Vote]:
    """The votes with every doubt resolved towards allowing."""
    return [
        vote._replace(
            holds=vote.holds is True or (vote.holds is None and vote.reason.verdict == "allow"),
            fails=vote.fails is True,
        )
        for vote in votes
    ]


def _same_ruling(fearful: _Ruling, hopeful: _Ruling, presets: Presets) -> bool:
    """Whether all readings between these two have the same ruling.

    More denials never turn a denial into an allowance, and more allowances never do the reverse. So
    if the two extremes agree, all readings between them agree. The exception is a hard default: if
    it decides one extreme and a hard rule the other, a soft rule may decide a reading between.
    """
    if presets.default_allow_hard and bool(fearful.votes) != bool(hopeful.votes):
        return False
    return fearful[:2] == hopeful[:2]


def _reasons(ruling: _Ruling, presets: Presets) -> tuple[Reason, ...]:
    if not ruling.votes:
        effect: Effect = "allow" if presets.default_allow else "deny"
        return (Reason(DEFAULT_RULE, None, NO_RULE_DECIDES, ruling.strength, effect),)
    if not ruling.is_unmet:
        return tuple(
            vote.reason if vote.holds else replace(vote.reason, certain=False)
            for vote in ruling.votes
        )
    return tuple(
        replace(vote.reason, verdict="deny", certain=vote.fails is True, unmet=True)
        for vote in ruling.votes
    )


def denial_of(verdict: Verdict, call: Call | None = None) -> Denial:
    """Make the denial for a verdict; it reports the first reason.

    Args:
        verdict: A verdict that denies, or that allows in doubt.
        call: The call, if the denial is to contain its arguments.
    """
    first = verdict.reasons[0]
    return Denial(
        verdict.tool,
        "uncertain" if verdict.allowed else "policy",
        "hard" if verdict.allowed else verdict.strength,
        certain=verdict.certain and not verdict.allowed,
        rule=" ".join(first.rule.split()),
        line=None if first.at is None else first.at.line,
        column=None if first.at is None else first.at.column,
        reason=first.description or None,
        doubt=first.doubt or None,
        policy=first.policy,
        **({} if call is None else call_facts(call)),
    )


def call_facts(call: Call) -> Mapping[str, Any]:
    """The fields of a denial about the call."""
    return {
        "arguments": {name: a.value for name, a in call.arguments.items()},
        "labels": {name: a.labels.to_wire() for name, a in call.arguments.items()},
    }
