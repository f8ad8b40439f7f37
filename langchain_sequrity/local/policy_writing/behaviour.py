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


# What else can mean to act is left out, such as `open` (a file, a valve) and `check` (in, out).
_READS = _words("""
    browse count crawl describe download examine extract fetch find get grep inspect list look
    lookup peek query read recall recognize retrieve scan scrape search show stat status summarize
    tail transcribe view
""")
_ACTS = _words("""
    accept add adjust alter append apply approve archive assign attach authorize ban block broadcast
    buy cancel clear close configure confirm connect create debit delete deliver deploy destroy
    disable discard dispatch donate drain drop edit empty enable encrypt enqueue erase eval evaluate
    exec execute fill fix forward fulfill give hire insert install invite invoke join kick kill
    launch lend make merge modify mute navigate notify overwrite pay pop provision publish purge put
    reboot refund register reject release remit remove rename repair replace reply resize respond
    restart restore revoke rewrite save sell send shutdown submit subscribe switch sync tell
    terminate toggle trigger truncate unblock unlock unsubscribe upload wipe withdraw write
""")
# Verbs that are nouns as well: `order_food` acts, `get_order` does not.
_ALSO_NOUNS = _words("""
    book call change charge click comment commit copy email export file flash format fund grant
    import invoice issue lock log mail mark message move order patch ping place post press print
    promote purchase push rent report request reserve reset run schedule set share sign speak start
    stop store swap tip trade transfer trash tweet type update upgrade vote wire
""")
# Nobody writes of what a tool reads that it "gives" or "makes" this; of these verbs somebody may.
_WEAK = _words("""
    accept add append apply approve block clear close configure confirm connect edit empty enable
    fill give join make merge mute put register release replace respond restore save switch tell
""")
_STRONG = _ACTS - _WEAK
# What acts with these in its name brings back what others wrote: a page, a table, an output.
_ANSWERS = _words("""
    ask bash browser call click code command console curl eval evaluate exec execute graphql http
    https import invoke navigate ping pop python query receive request run script shell sql submit
    sync terminal url web webhook
""")
_COMPUTES = _words("""
    average calculate calculator clock compare compute convert decode digest divide encode hash
    math max median min multiply now random round sort subtract sum time today
""")
# What stands beside them in the names of tools that do nothing else.
_COMPUTED = _words("""
    a an and base64 by color csv currency current date day decimal distance expression float for
    from hex int integer json length list md5 name number of percentage power sha1 sha256 string
    temperature text the timezone to tool two unit utc value zone
""")
_JOINING = frozenset({"and", "n", "or", "plus", "then"})
# Arguments that decide what is run or asked, and those that else decide where something goes or
# comes from: whoever chooses them has the say.
_CODE = _words("""
    cmd code command endpoint expression host hostname href link program query script shell sql
    statement uri url webhook
""")
_STEERING = _CODE - {"query"} | _words("""
    address bcc cc destination dir directory domain email file filename filepath folder path phone
    recipient recipients target to
""")
_DATABASES = _words("cypher database db graphql sparql sql")
# Where a description has verbs: at the beginning of a sentence, and after words that join them.
_SENTENCE = re.compile(r"(?:^|[.;:!?\n])[\s*`_-]{0,9}([a-z]{2,20})\b", re.IGNORECASE)
_JOINED = re.compile(
    r"(?:(?:,|\b(?:and|or|then|also|to|will|can|may)\b)[\s*`_-]{1,9}){1,3}([a-z]{2,20})\b",
    re.IGNORECASE,
)
_INFLECTED = re.compile(r"\b[a-z]{2,20}(?:s|ing)\b", re.IGNORECASE)
_DESCRIPTION = 2_000
_ENDINGS = (("ies", "y"), ("es", ""), ("s", ""), ("es", "e"), ("ing", ""), ("ing", "e"))
_DOUBLED = re.compile(r"([a-z])\1ing\Z")
# Servers of tools put their own name in front: `github__get_file`.
_PARTS = re.compile(r"__+|[.:/]")
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
    named, taken = words(function.name), _taken(function.parameters)
    reading = _first(named, _READS)
    if acting := _acting(function.name):
        answering = reading or _first(named, _ANSWERS) or not taken.isdisjoint(_CODE)
        return Behaviour(bool(answering), acts=True, why=f"the name has `{acting}`")
    if told := _told(function.description or ""):
        return Behaviour(reads=True, acts=True, why=f"the description has `{told}`")
    if reading:
        steering = None
        if _DATABASES.isdisjoint(named):
            steering = _steering(function.parameters or {})
        return Behaviour(reads=True, acts=False, why=f"the name has `{reading}`", steering=steering)
    computing = _first(named, _COMPUTES)
    is_all = all(_is_any(word, _COMPUTES | _COMPUTED) for word in named)
    if computing and is_all and taken.isdisjoint(_CODE - {"expression"}):
        return Behaviour(reads=False, acts=False, why=f"the name has `{computing}`")
    return Behaviour(reads=True, acts=True, why="the name does not tell")


def _acting(name: str) -> str:
    """The word of a name that says that a tool acts, or nothing."""
    for part in _PARTS.split(name):
        before, is_noun = "", False
        for word in words(part):
            is_joined = before in _JOINING
            is_verb = not is_noun or is_joined
            if _is_any(word, _ACTS) or (is_verb and _is_any(word, _ALSO_NOUNS)):
                return word
            if is_joined and not _is_any(word, _READS | _COMPUTES | _COMPUTED):
                return f"{before} {word}"
            is_noun = is_noun or _is_any(word, _READS)
            before = word
    return ""


def _told(description: str) -> str:
    """The word of a description that says that a tool acts, or nothing."""
    text = description[:_DESCRIPTION]
    opening = [match[1].lower() for match in _SENTENCE.finditer(text)]
    joined = [match[1].lower() for match in _JOINED.finditer(text)]
    inflected = [match[0].lower() for match in _INFLECTED.finditer(text)]
    return (
        _first(opening, _ACTS | _ALSO_NOUNS) or _first(joined, _ACTS) or _first(inflected, _STRONG)
    )


def _taken(schema: Mapping[str, Any] | None) -> set[str]:
    """The words in the names of a tool's arguments."""
    properties = (schema or {}).get("properties")
    names = properties if isinstance(properties, Mapping) else ()
    return {word for name in names for word in words(str(name))}


def _first(found: Iterable[str], known: frozenset[str]) -> str:
    return next((word for word in found if _is_any(word, known)), "")


def _is_any(word: str, known: frozenset[str]) -> bool:
    """Whether a word is one of those known, also with an ending: `sends`, `copies`, `making`."""
    return (
        word in known
        or _DOUBLED.sub(r"\1", word) in known
        or any(
            word.endswith(ending) and word.removesuffix(ending) + stem in known
            for ending, stem in _ENDINGS
        )
    )


def _steering(schema: Mapping[str, Any]) -> tuple[str, ...] | None:
    properties = schema.get("properties")
    others = schema.get("additionalProperties", False)
    if not isinstance(properties, Mapping) or others is not False:
        return None
    names = [name for name in properties if not _STEERING.isdisjoint(words(str(name)))]
    required = schema.get("required")
    # A condition on an argument that was left out is unknown, and so denies (V2).
    always = required if isinstance(required, list) else []
    if all(_NAMEABLE.match(name) and name in always for name in names):
        return tuple(names)
    return None
