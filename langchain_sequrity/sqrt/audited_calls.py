"""Calls in a server's audit log, as calls to try.

A line has all that a verdict depends on: the values and labels of the arguments, and the labels of
the session before the check. So each call is judged by itself, and its session is not played again:
the labels are those that the policy of that time gave. A value that was cut or hashed is unknown to
the policy; a verdict that depends on it cannot be judged.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from langchain_sequrity.labels import KINDS, NO_LABELS, BadLabels, Labels
from langchain_sequrity.sqrt.context import MISSING, AllBut, Argument, Call
from langchain_sequrity.sqrt.trials import Expectation, Trial, TrialReader

AUDIT_KEY = "audit"
"""The key that only lines of an audit log have; its value is the version of their form."""

_VERSION = 1
_HIDDEN = "audit_hidden"
_ALL_BUT = "all_but"
_NOT_OF_POLICY = "content_denied"


@dataclass(frozen=True, slots=True)
class AuditedTrial(Trial):
    """A call of an audit log. Its verdict of that time is the expected one.

    Attributes:
        session_labels: The session's labels before the check.
        decided_by: The labels of what decided the call.
        declared: The arguments that the tool's schema names.
        hidden: The arguments whose values are not in the log.
        unjudged: Why the policy cannot judge the call, or an empty text.
    """

    session_labels: Labels = NO_LABELS
    decided_by: Labels = NO_LABELS
    declared: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    unjudged: str = ""

    def call(self) -> Call:
        """The call; hidden values are unknown."""
        arguments = {
            name: Argument(MISSING if name in self.hidden else value, self.labels[name])
            for name, value in self.arguments.items()
        }
        return Call(self.tool, arguments, self.decided_by, self.declared)


def hidden_value(value: Any, *, digest: str = "", begin: str = "") -> dict[str, Any]:
    """What an audit log has in the place of a value.

    Args:
        value: The value, of which only the type is shown.
        digest: A digest of it.
        begin: The begin of its text.
    """
    parts = {"sha256": digest, "begin": begin}
    return {_HIDDEN: type(value).__name__, **{key: text for key, text in parts.items() if text}}


def is_hidden(value: Any) -> bool:
    """Whether it is what `hidden_value` makes."""
    return isinstance(value, Mapping) and _HIDDEN in value


def write_labels(labels: Labels) -> dict[str, Any]:
    """Labels as JSON data, which `read_labels` reads; also "all but X"."""
    written: dict[str, Any] = {}
    for label_kind in KINDS:
        names = getattr(labels, label_kind)
        if type(names) is AllBut:
            written[label_kind] = {_ALL_BUT: sorted(names.excluded)}
        else:
            written[label_kind] = sorted(names)
    return written


def _read_labels(data: Any) -> Labels:
    if not isinstance(data, Mapping):
        raise BadLabels
    sets: dict[str, Any] = {}
    for label_kind in KINDS:
        names = data.get(label_kind)
        is_all_but = isinstance(names, Mapping) and [*names] == [_ALL_BUT]
        listed = names[_ALL_BUT] if is_all_but and isinstance(names, Mapping) else names
        if not isinstance(listed, list) or not all(isinstance(name, str) for name in listed):
            raise BadLabels(label_kind)
        excluded = frozenset(listed)
        sets[label_kind] = AllBut.excluding(excluded) if is_all_but else excluded
    return Labels(**sets)


def audited_trial(line: Mapping[str, Any]) -> AuditedTrial:
    """Read a line of an audit log.

    Args:
        line: The object in the line; it has the key `audit`.

    Raises:
        ValueError: If it is not a whole line of this version; the message says why.
    """
    if line[AUDIT_KEY] != _VERSION:
        msg = f"its form is version {line[AUDIT_KEY]!r}, and this package reads {_VERSION}"
        raise ValueError(msg)
    try:
        arguments, labels = line["arguments"], line["labels"]
        hidden = tuple(name for name, value in arguments.items() if is_hidden(value))
        verdict = line.get("policy_verdict", line["verdict"])
        unjudged = "a classifier denied it" if verdict == _NOT_OF_POLICY else ""
        return AuditedTrial(
            tool=line["tool"],
            arguments=dict(arguments),
            labels={name: _read_labels(labels[name]) for name in arguments},
            session=line["session"],
            expect=cast("Expectation", "not_reached" if unjudged else verdict),
            session_labels=_read_labels(line["session_labels"]),
            decided_by=_read_labels(line["decided_by"]),
            declared=tuple(line["declared"]),
            hidden=hidden,
            unjudged=unjudged,
        )
    except (KeyError, TypeError, AttributeError) as error:
        msg = f"a part is missing or has another type: {error}"
        raise ValueError(msg) from None
    except BadLabels:
        msg = "its labels are not lists of names"
        raise ValueError(msg) from None


class AuditReader(TrialReader):
    """Reads a call to try, which may be a line of an audit log."""

    __slots__ = ()

    def read(self) -> Trial:
        """The call; an `AuditedTrial` for a line of an audit log. Raises like `TrialReader`."""
        if isinstance(self._call, AuditedTrial):
            return self._call
        if isinstance(self._call, bytes):
            self._call = self._from_line(self._call)
        if not isinstance(self._call, Mapping) or AUDIT_KEY not in self._call:
            return super().read()
        try:
            return audited_trial(self._call)
        except ValueError as error:
            self.fail(f"it cannot be read as a line of an audit log: {error}", "Leave it out")


@dataclass(slots=True)
class UnjudgedTally:
    """The calls of audit logs and traces that a policy could not judge.

    Attributes:
        reasons: Their numbers, by reason.
    """

    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, decisions: Sequence[Any]) -> None:
        """Count the decision of the first policy."""
        if unjudged := getattr(decisions[0].trial, "unjudged", ""):
            self.reasons[unjudged] += 1

    def merge(self, other: "UnjudgedTally") -> None:
        """Add the counts of another process."""
        self.reasons.update(other.reasons)
