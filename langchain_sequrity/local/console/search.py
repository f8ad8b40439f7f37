"""Which sessions the list shows: by tool, verdict, label, key, and text."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from langchain_sequrity.labels import KINDS
from langchain_sequrity.local.console.recorder import RecordedCall, RecordedSession, RecordedTurn
from langchain_sequrity.local.console.views import request_of

VERDICTS = ("allowed", "denied", "soft denied", "hard denied", "approved", "rejected")
_LONGEST = 200


@dataclass(frozen=True, slots=True)
class Search:
    """What is searched for; empty texts match everything.

    Attributes:
        text: A part of a request, an answer, an argument or a result; case does not count.
        tool: A part of the name of a called tool.
        verdict: A verdict of a call, one of `VERDICTS`.
        label: A part of a producer, tag or consumer of an argument or of the result.
        key: A part of the name of the key.
    """

    text: str = ""
    tool: str = ""
    verdict: str = ""
    label: str = ""
    key: str = ""

    @classmethod
    def from_query(cls, query: Mapping[str, str]) -> "Search":
        """The search in the query of a URL."""
        return cls(**{name: query.get(name, "").strip()[:_LONGEST] for name in cls.__slots__})

    @property
    def is_empty(self) -> bool:
        """Whether it matches everything."""
        return not any((self.text, self.tool, self.verdict, self.label, self.key))

    def matching(self, sessions: Iterable[RecordedSession]) -> Iterator[RecordedSession]:
        """The sessions that match; one call has to match tool, verdict and label together."""
        needs_call = self.tool or self.verdict or self.label
        for session in sessions:
            if self.key and self.key.lower() not in session.key.lower():
                continue
            turns = [*session.turns.values()]
            calls = [call for turn in turns for call in [*turn.calls]]
            if needs_call and not any(map(self._matches_call, calls)):
                continue
            if self.text and not any(self._is_in(text) for t in turns for text in _texts(t)):
                continue
            yield session

    def _matches_call(self, recorded: RecordedCall) -> bool:
        check = recorded.check
        if self.tool and self.tool.lower() not in check.call.tool.lower():
            return False
        if self.verdict and not _has_verdict(recorded, self.verdict):
            return False
        values = [*check.call.arguments.values()]
        if recorded.result is not None:
            values.append(recorded.result)
        return not self.label or any(
            self.label.lower() in name.lower()
            for value in values
            for label_kind in KINDS
            for name in getattr(value.labels, label_kind)
        )

    def _is_in(self, text: str) -> bool:
        return self.text.lower() in text.lower()


def _has_verdict(recorded: RecordedCall, verdict: str) -> bool:
    check = recorded.check
    if verdict in {"approved", "rejected"}:
        return check.decision == verdict
    if verdict == "allowed":
        return check.is_allowed
    strength = verdict.removesuffix("denied").strip()
    return not check.is_allowed and check.word.startswith(strength)


def _texts(turn: RecordedTurn) -> Iterator[str]:
    yield request_of(turn)
    yield turn.reply
    for call in [*turn.calls]:
        for argument in call.check.call.arguments.values():
            yield from _texts_in(argument.value)
        if call.result is not None:
            yield from _texts_in(call.result.value)


def _texts_in(value: object) -> Iterator[str]:
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, str):
            yield part
        elif isinstance(part, Mapping):
            waiting += part.values()
        elif isinstance(part, list | tuple):
            waiting += part
        else:
            yield str(part)
