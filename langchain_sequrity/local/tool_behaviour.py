"""The behaviour of a tool, guessed from its definition: whether it reads, acts, or computes.

Name, description and schema come from the author of the tool, who may be anyone. So a description
can only make a policy stricter, and a tool with an unclear name counts as reading and acting.

A policy becomes more permissive in two cases only, and only if all words of the name are known:
readers of contacts, dates or catalogues return no foreign content; and a tool that sends or creates
something may take its text from anywhere, if trusted data choose the recipient.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

from langchain_sequrity.wire.tools import read_function

_MOST_CHARACTERS = 8_000
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_WORD = re.compile(r"[^\W_]{1,64}")


def words(text: str, limit: int | None = _MOST_CHARACTERS) -> list[str]:
    """Words in lower case; `snake_case` and `camelCase` are split."""
    return [word.lower() for word in _WORD.findall(_CAMEL.sub(" ", text[:limit]))]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Verbs that can also mean to act are left out, such as `open` (a file, a valve), `check` (in, out).
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
# Descriptions of readers may use these verbs; they do not use the other acting verbs.
_WEAK = _words("""
    accept add append apply approve block clear close configure confirm connect edit empty enable
    fill give join make merge mute put register release replace respond restore save switch tell
""")
_STRONG = _ACTS - _WEAK
# Acting tools with these words return foreign content: a page, a table, an output.
_ANSWERS = _words("""
    ask bash browser call click code command console curl eval evaluate exec execute graphql http
    https import invoke navigate ping pop python query receive request run script shell sql submit
    sync terminal url web webhook
""")
_COMPUTES = _words("""
    average calculate calculator clock compare compute convert decode digest divide encode hash
    math max median min multiply now random round sort subtract sum time today
""")
# Other words in the names of tools that only compute.
_COMPUTED = _words("""
    a an and base64 by color csv currency current date day decimal distance expression float for
    from hex int integer json length list md5 name number of percentage power sha1 sha256 string
    temperature text the timezone to tool two unit utc value zone
""")
_JOINING = frozenset({"and", "n", "or", "plus", "then"})
# Arguments that decide what is run or asked, and arguments that decide where something goes or
# comes from.
_CODE = _words("""
    cmd code command endpoint expression host hostname href link program query script shell sql
    statement uri url webhook
""")
_STEERING = _CODE - {"query"} | _words("""
    address bcc cc destination dir directory domain email file filename filepath folder path phone
    recipient recipients target to
""")
_DATABASES = _words("cypher database db graphql sparql sql")


class _OwnData(NamedTuple):
    """Data of the caller or of the service itself, which a reader may return.

    Attributes:
        nouns: The name of such a reader has one of them.
        qualifiers: The other words that the name may have.
        store: A tool whose name, description or arguments have one of these words may write into
            the store of these data. Without words there is no store.
    """

    nouns: frozenset[str]
    qualifiers: frozenset[str]
    store: frozenset[str]


_CONTACTS = _words("colleague contact coworker employee phonebook staff")
_CATALOGUE = _words("""
    airline airport bus car catalog catalogue cuisine currency fare fee flight holiday hotel
    inventory menu price pricing product restaurant room seat sku tariff timetable train
""")
_SCHEDULED = _words("recurring scheduled standing upcoming")
_PAYMENTS = _words("bill order payment transaction transfer")
_BALANCES = _words("balance iban")
# Here an `email` is an address; `emails` are letters.
_OWN = (
    _OwnData(
        _CONTACTS,
        _words("address book company department email info information number phone title"),
        _CONTACTS | _words("member people person"),
    ),
    _OwnData(
        _words("date day hour month time timezone today tomorrow week weekday year yesterday"),
        _words("city clock country difference format local next now opening utc zone"),
        frozenset(),
    ),
    _OwnData(
        _CATALOGUE,
        _words("""
            address arrival availability brand category check city code color company contact cost
            country day departure dietary driver email fuel hour info information location night
            number opening option person phone range region rental restriction schedule size station
            stock time type unit
        """),
        _CATALOGUE,
    ),
    _OwnData(_SCHEDULED, _PAYMENTS, _SCHEDULED | _PAYMENTS | _words("money schedule")),
    _OwnData(
        _BALANCES,
        _words("account bank card saving total"),
        _BALANCES | _words("account bank card saving"),
    ),
)
# Readers without arguments whose nouns are all in these lists are about the caller.
_CALLER_STORE = _words("account card preference profile setting user")
_CALLER = _CALLER_STORE | _words("detail info information me my name own self")
# A tool whose name has no other words may write into any store: `add_row`.
_ANY_STORE = _words("""
    add append create data entry field item list object record resource row table value write
""")
_ALL_STORES = frozenset().union(*(data.store for data in _OWN), _CALLER_STORE)
_ANYWHERE = _words("""
    a all an and any at available by current for from given id in list me my name next of on or our
    per the to under with
""")
# `check` alone may also mean to check in.
_READS_OWN = _READS | {"check", "lookup"}
# Foreign content. A reader that mentions one of these words does not only read own data.
_OTHERS = _words("""
    article attachment author bio biography blog body chat comment complaint content conversation
    description document feed feedback forum internet issues listing message news notes online
    opinion posted posts rating remark reply review reviewer seller stranger submission testimonial
    thread transcript tweet web webpage website wiki written
""")
_LETTERS = frozenset({"emails", "mailbox", "mails"})
# Tools that create or send something; their text does not decide where it goes.
_COMPOSES = _words("""
    add append comment compose create draft email mail message notify post publish reply respond
    schedule send share tell write
""")
_TEXTS = _words("""
    body caption comment content description headline heading html markdown memo message note notes
    remark subject text title topic
""")
# `reply_to_message`, for example, is a reference and not a text.
_BINDING = _words("by from id to")
_EVENTS = _words("appointment calendar event meeting reminder")
_PLACES = _words("location place venue")
# Text that is executed, or followed later, is more than text.
_RUN = _words("""
    bash cmd code command config configuration console cypher database db eval evaluate exec execute
    expression graphql instruction macro memory permission policy program prompt query role rule run
    script setting shell sparql sql statement template terminal workflow
""")
# Places of verbs in a description: at the beginning of a sentence, and after joining words.
_SENTENCE = re.compile(r"(?:^|[.;:!?\n])[\s*`_-]{0,9}([a-z]{2,20})\b", re.IGNORECASE)
_JOINED = re.compile(
    r"(?:(?:,|\b(?:and|or|then|also|to|will|can|may)\b)[\s*`_-]{1,9}){1,3}([a-z]{2,20})\b",
    re.IGNORECASE,
)
_INFLECTED = re.compile(r"\b[a-z]{2,20}(?:s|ing)\b", re.IGNORECASE)
_DESCRIPTION = 2_000
_ENDINGS = (("ies", "y"), ("es", ""), ("s", ""), ("es", "e"), ("ing", ""), ("ing", "e"))
_DOUBLED = re.compile(r"([a-z])\1ing\Z")
# Tool servers add their own name as a prefix: `github__get_file`.
_PARTS = re.compile(r"__+|[.:/]")
_NAMEABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


@dataclass(frozen=True, slots=True)
class Behaviour:
    """The behaviour of a tool.

    Attributes:
        reads: Whether its results may contain foreign content.
        acts: Whether it changes or sends something.
        reason: The reason in a few words, with words of the tool.
        steering: Names of the arguments that decide where the tool reads, what it changes or whom
            it reaches. Data from outside must not choose them. `None` means all arguments.
        optional: Those of them that may be omitted, and then have the default of the schema.
        store: Words of the store that it reads, if only the caller or the service writes there.
        stores_text: Words of the store into which it may write text from anywhere.
    """

    reads: bool
    acts: bool
    reason: str
    steering: tuple[str, ...] | None = ()
    optional: frozenset[str] = frozenset()
    store: frozenset[str] = frozenset()
    stores_text: frozenset[str] = frozenset()

    def may_return_text_of(self, other: "Behaviour") -> bool:
        """Whether another tool may write text into the store that this one reads."""
        return any(_is_any(word, self.store) for word in other.stores_text)


class _Schema:
    """The arguments of a tool.

    Args:
        schema: A JSON Schema.
    """

    def __init__(self, schema: Mapping[str, Any] | None) -> None:
        schema = schema or {}
        properties = schema.get("properties")
        arguments = properties if isinstance(properties, Mapping) else {}
        required = schema.get("required")
        # Each call has these arguments, so that conditions on them are never unknown (V2).
        self.required = required if isinstance(required, list) else []
        # Whether other arguments are not allowed.
        self.is_closed = (
            isinstance(properties, Mapping) and schema.get("additionalProperties", False) is False
        )
        self.names = tuple(map(str, arguments))
        self.words = {word for name in self.names for word in words(name)}
        # A call without one of these arguments has a known value.
        self.with_default = {
            str(n) for n, a in arguments.items() if isinstance(a, Mapping) and "default" in a
        }


def behaviour_of(tool: Mapping[str, Any]) -> Behaviour:
    """Guess the behaviour of a tool.

    Args:
        tool: A function tool in the neutral form.

    Returns:
        The behaviour; without other evidence, the tool reads and acts.
    """
    function = read_function(tool)
    if function is None:
        return _unknown_behaviour("not a function")
    name = function["name"]
    name_words, schema = words(name), _Schema(function.get("parameters"))
    description = function.get("description", "")[:_DESCRIPTION]
    reading = _first_of(name_words, _READS)
    if acting := _action_word(name):
        answering = reading or _first_of(name_words, _ANSWERS) or not schema.words.isdisjoint(_CODE)
        steering, optional = _target_arguments(name_words, description, schema)
        reason = f"the name has `{acting}`"
        takes_text = steering is not None and len(steering) < len(schema.names)
        stores = _text_stores(name_words, description, schema) if takes_text else frozenset[str]()
        return Behaviour(
            reads=bool(answering),
            acts=True,
            reason=reason,
            steering=steering,
            optional=optional,
            stores_text=stores,
        )
    if verb := _described_verb(description):
        return _unknown_behaviour(f"the description has `{verb}`")
    noun, store = _own_content(name, description, schema)
    if noun or reading:
        steering = _steering_arguments(schema) if _DATABASES.isdisjoint(name_words) else None
        reason = f"the name has `{noun or reading}`"
        return Behaviour(reads=not noun, acts=False, reason=reason, steering=steering, store=store)
    computing = _first_of(name_words, _COMPUTES)
    is_all = all(_is_any(word, _COMPUTES | _COMPUTED) for word in name_words)
    if computing and is_all and schema.words.isdisjoint(_CODE - {"expression"}):
        return Behaviour(reads=False, acts=False, reason=f"the name has `{computing}`")
    return _unknown_behaviour("the name is unclear")


def _unknown_behaviour(reason: str) -> Behaviour:
    return Behaviour(reads=True, acts=True, reason=reason, steering=None)


def _action_word(name: str) -> str:
    """The word of a name that shows that the tool acts, or an empty text."""
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


def _described_verb(description: str) -> str:
    """The word of a description that shows that the tool acts, or an empty text."""
    verbs = ((_SENTENCE, _ACTS | _ALSO_NOUNS), (_JOINED, _ACTS), (_INFLECTED, _STRONG))
    words_found = (
        _first_of(map(str.lower, position.findall(description)), vocabulary)
        for position, vocabulary in verbs
    )
    return next(filter(None, words_found), "")


def _first_of(candidates: Iterable[str], vocabulary: frozenset[str]) -> str:
    return next((word for word in candidates if _is_any(word, vocabulary)), "")


def _is_any(word: str, vocabulary: frozenset[str]) -> bool:
    """Whether a word is known, also with an ending: `sends`, `copies`, `making`."""
    return (
        word in vocabulary
        or _DOUBLED.sub(r"\1", word) in vocabulary
        or any(
            word.endswith(ending) and word.removesuffix(ending) + stem in vocabulary
            for ending, stem in _ENDINGS
        )
    )


def _steering_arguments(schema: _Schema) -> tuple[str, ...] | None:
    """The arguments that decide where a reader reads; `None` if SQRT cannot name all of them."""
    names = [name for name in schema.names if not _STEERING.isdisjoint(words(name))]
    # A condition on an omitted argument is unknown, and so denies (V2).
    can_name = all(_NAMEABLE.match(name) and name in schema.required for name in names)
    return tuple(names) if can_name and schema.is_closed else None


def _own_content(name: str, description: str, schema: _Schema) -> tuple[str, frozenset[str]]:
    """The word of a name that shows that a reader returns no foreign content, and its store.

    Both are empty for another reader.
    """
    *servers, last = _PARTS.split(name)
    verb, *nouns = [*words(last), *words(" ".join(servers))] or [""]
    all_words = {*nouns, *words(description), *schema.words}
    if _first_of(all_words, _OTHERS) or not all_words.isdisjoint(_LETTERS):
        return _NOT_OWN
    if verb not in _READS_OWN or not (_CODE - {"query", "code"}).isdisjoint(schema.words):
        return _NOT_OWN
    if not schema.names and schema.is_closed and all(_is_any(noun, _CALLER) for noun in nouns):
        return (nouns[0], _CALLER_STORE) if nouns else _NOT_OWN
    for data in _OWN:
        noun = _first_of(nouns, data.nouns)
        if noun and all(_is_any(noun, data.nouns | data.qualifiers | _ANYWHERE) for noun in nouns):
            return noun, data.store
    return _NOT_OWN


_NOT_OWN = "", frozenset[str]()


def _target_arguments(
    name_words: list[str], description: str, schema: _Schema
) -> tuple[tuple[str, ...] | None, frozenset[str]]:
    """The arguments of an acting tool that are not plain text, and which of them are optional.

    Texts may come from anywhere only if another argument is always given and decides for whom or
    what they are. A tool that only has a text may reach anyone.
    """
    verbs = [
        word
        for before, word in pairwise(["and", *name_words])
        if _is_any(word, _ACTS | _READS) or (before in _JOINING and _is_any(word, _ALSO_NOUNS))
    ]
    all_words = {*name_words, *words(description), *schema.words}
    is_composing = all(_is_any(word, _COMPOSES) for word in verbs)
    if not verbs or not is_composing or not schema.is_closed or _first_of(all_words, _RUN):
        return None, frozenset()
    places = frozenset() if _EVENTS.isdisjoint(name_words) else _PLACES
    names = [name for name in schema.names if not _is_text(name, _TEXTS | places)]
    optional = frozenset(name for name in names if name not in schema.required)
    if not all(_NAMEABLE.match(name) for name in names) or optional.issuperset(names):
        return None, frozenset()
    return (tuple(names), optional) if optional <= schema.with_default else (None, frozenset())


def _text_stores(name_words: list[str], description: str, schema: _Schema) -> frozenset[str]:
    """The words that may name the store into which an acting tool writes."""
    if all(_is_any(word, _ANY_STORE | _ANYWHERE) for word in name_words):
        return _ALL_STORES
    return frozenset({*name_words, *words(description), *schema.words})


def _is_text(name: str, texts: frozenset[str]) -> bool:
    """Whether an argument is plain text; `message_id`, for example, is not."""
    name_words = words(name)
    return bool(name_words) and name_words[-1] in texts and _BINDING.isdisjoint(name_words)
