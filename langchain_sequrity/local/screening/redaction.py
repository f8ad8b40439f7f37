"""Rules that find places in a text, and the markers that take their place."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, NamedTuple

from langchain_sequrity.local.screening.folding import fold

# A marker brings together what stood apart, which can be a finding of its own.
_ROUNDS = 3
# So many in one text are a dump; its markers would be longer than the text.
_MOST_HITS = 10_000


class Hit(NamedTuple):
    """A place in a text, and what is there."""

    start: int
    end: int
    kind: str


@dataclass(frozen=True, slots=True)
class Rule:
    """A blocker, or a classifier that redacts.

    Attributes:
        name: Its name in `X-Features`.
        verb: What a marker says was done.
        find: Finds the places in a folded text, in any order; takes time linear in its length.
    """

    name: str
    verb: Literal["blocked", "redacted"]
    find: Callable[[str], Iterable[Hit]]

    def marker(self, kind: str) -> str:
        """What stands in the place of a finding."""
        return f"[{kind} {self.verb}]".upper()


class _Span(NamedTuple):
    start: int
    end: int
    rule: Rule
    kind: str


Found = Counter[tuple[str, str]]


def redact(text: str, rules: Sequence[Rule]) -> tuple[str, Found]:
    """Replace what the rules find, until they find nothing more.

    Args:
        text: Any text.
        rules: The rules.

    Returns:
        A text in which no rule finds anything, and how often which rule found what kind. A text
        that does not come to rest, or has more than 10,000 findings, is replaced as a whole.
    """
    found: Found = Counter()
    for _ in range(_ROUNDS):
        spans = _spans(text, rules)
        if not spans:
            return text, found
        found.update((span.rule.name, span.kind) for span in spans)
        if len(spans) > _MOST_HITS:
            break
        text = _replaced(text, spans)
    else:
        spans = _spans(text, rules)
    if spans:
        text = spans[0].rule.marker(spans[0].kind)
    return text, found


def _spans(text: str, rules: Sequence[Rule]) -> list[_Span]:
    """Places in order, and apart unless there are too many of them.

    Of places that overlap, the first gives the whole its name; of those, the longest.
    """
    folded = fold(text)
    places = (
        _Span(*folded.original(hit.start, hit.end), rule, hit.kind)
        for rule in rules
        for hit in rule.find(folded.text)
    )
    first = list(islice(places, _MOST_HITS + 1))
    if len(first) > _MOST_HITS:
        return first
    spans: list[_Span] = []
    for place in sorted(first, key=lambda span: (span.start, -span.end)):
        if spans and place.start < spans[-1].end:
            spans[-1] = spans[-1]._replace(end=max(spans[-1].end, place.end))
        else:
            spans.append(place)
    return spans


def _replaced(text: str, spans: Iterable[_Span]) -> str:
    pieces: list[str] = []
    done = 0
    for span in spans:
        pieces += text[done : span.start], span.rule.marker(span.kind)
        done = span.end
    return "".join([*pieces, text[done:]])
