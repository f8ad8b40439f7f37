"""What a tool does, as far as its name, description and schema tell: it reads, acts, or computes.

All three come from whoever wrote the tool, who may be anybody. So a description can only make a
policy tighter, and a name that says nothing counts as both reading and acting.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from langchain_sequrity.local.clues import words
from langchain_sequrity.wire.tools import read_function


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_READS = _words("""
    browse check count crawl describe download examine extract fetch find get google grep inspect
    list load look lookup monitor open peek poll pull query read receive recall recognize retrieve
    scan scrape search select show stat status summarize tail transcribe view watch
""")
_ACTS = _words("""
    accept add append apply approve archive assign authorize ban block broadcast buy cancel clear
    close configure confirm connect create debit delete deliver deploy disable discard dispatch
    donate drop edit empty enable encrypt enqueue erase exec execute fill forward fulfill give hire
    insert install invite invoke join kick kill launch lend make merge modify mute navigate notify
    pay provision publish purge put reboot refund register reject release remit remove rename
    replace reply resize restart restore revoke save sell send shutdown submit subscribe switch
    sync terminate toggle trigger unblock unlock unsubscribe upload wipe withdraw write
""")
# Verbs that are nouns as well: `order_food` acts, `get_order` does not.
_ALSO_NOUNS = _words("""
    book call change charge click comment commit copy email export file flash format fund grant
    import invoice issue lock log mail mark message move order patch ping place post press print
    promote purchase push rent report request reserve reset run schedule set share sign speak start
    stop store swap tip trade transfer trash tweet type update upgrade vote wire
""")
_COMPUTES = _words("""
    average calculate calculator clock compare compute convert decode digest divide encode hash
    math max median min multiply now random round sort subtract sum time today
""")
_JOINING = frozenset({"and", "or", "then"})
# Arguments that decide where something goes, or what is run: whoever chooses them has the say.
_STEERING = _words("""
    address bcc cc cmd code command destination domain email endpoint expression host hostname href
    link phone program recipient recipients script shell sql statement target to uri url webhook
""")
# Where a description has verbs: at the beginning of a sentence, and after words that join them.
_SENTENCE = re.compile(r"(?:^|[.;:!?\n])[\s*`_-]{0,9}([a-z]{2,20})\b", re.IGNORECASE)
_JOINED = re.compile(
    r"(?:(?:,|\b(?:and|or|then|also|to|will|can|may)\b)[\s*`_-]{1,9}){1,3}([a-z]{2,20})\b",
    re.IGNORECASE,
)
_DESCRIPTION = 2_000
_ENDINGS = (("ies", "y"), ("es", ""), ("s", ""), ("es", "e"))
_NAMEABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What a tool does.

    Attributes:
        reads: Whether what it returns may come from outside.
        acts: Whether it changes something or sends something.
        why: How that is known, in a few words; words of the tool stand in it as they are.
        steering: Required arguments of a reader that a policy can name and that decide where it
            looks; `None` if there are such arguments but not all can be named so.
    """

    reads: bool
    acts: bool
    why: str
    steering: tuple[str, ...] | None = ()


def behaviour_of(tool: Mapping[str, Any]) -> Behaviour:
    """Tell what a tool does.

    Args:
        tool: A function tool in the neutral form.

    Returns:
        What it does; without a sign of the contrary, everything.
    """
    function = read_function(tool)
    if function is None:
        return Behaviour(reads=True, acts=True, why="not a function")
    named = words(function.name)
    reading, acting = _first(named, _READS), _acting(named)
    if acting:
        return Behaviour(bool(reading), acts=True, why=f"the name has `{acting}`")
    if told := _told(function.description or ""):
        return Behaviour(reads=True, acts=True, why=f"the description has `{told}`")
    if reading:
        steering = _steering(function.parameters or {})
        return Behaviour(reads=True, acts=False, why=f"the name has `{reading}`", steering=steering)
    if computing := _first(named, _COMPUTES):
        return Behaviour(reads=False, acts=False, why=f"the name has `{computing}`")
    return Behaviour(reads=True, acts=True, why="the name does not tell")


def _acting(named: Iterable[str]) -> str:
    """The word of a name that says that a tool acts, or nothing."""
    before, is_noun = "", False
    for word in named:
        is_verb = not is_noun or before in _JOINING
        if _is_any(word, _ACTS) or (is_verb and _is_any(word, _ALSO_NOUNS)):
            return word
        is_noun = is_noun or _is_any(word, _READS | _COMPUTES)
        before = word
    return ""


def _told(description: str) -> str:
    """The word of a description that says that a tool acts, or nothing."""
    text = description[:_DESCRIPTION]
    opening = [match[1].lower() for match in _SENTENCE.finditer(text)]
    joined = [match[1].lower() for match in _JOINED.finditer(text)]
    return _first(opening, _ACTS | _ALSO_NOUNS) or _first(joined, _ACTS)


def _first(found: Iterable[str], known: frozenset[str]) -> str:
    return next((word for word in found if _is_any(word, known)), "")


def _is_any(word: str, known: frozenset[str]) -> bool:
    """Whether a word is one of those known, also with an ending: `sends`, `copies`."""
    return word in known or any(
        word.endswith(ending) and word.removesuffix(ending) + stem in known
        for ending, stem in _ENDINGS
    )


def _steering(schema: Mapping[str, Any]) -> tuple[str, ...] | None:
    properties = schema.get("properties")
    if not isinstance(properties, Mapping) or schema.get("additionalProperties"):
        return None
    names = [name for name in properties if not _STEERING.isdisjoint(words(str(name)))]
    required = schema.get("required")
    # A condition on an argument that was left out is unknown, and so denies (V2).
    always = required if isinstance(required, list) else []
    if all(_NAMEABLE.match(name) and name in always for name in names):
        return tuple(names)
    return None
