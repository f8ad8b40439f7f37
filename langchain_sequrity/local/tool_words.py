"""The words of tool definitions: how names are split, and the vocabulary that gives them meaning.

Each table is English that authors of tools in any field use. A word of one field only belongs in
none of them: what no table explains becomes a question to the author of the policy.
"""

import re
from collections.abc import Iterable, Iterator

_MOST_CHARACTERS = 8_000
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_WORD = re.compile(r"[^\W_]{1,64}")
_ENDINGS = (("ies", "y"), ("es", ""), ("s", ""), ("es", "e"))
_GERUNDS = (("ing", ""), ("ing", "e"))
_DOUBLED = re.compile(r"([a-z])\1ing\Z")


def words(text: str, limit: int | None = _MOST_CHARACTERS) -> list[str]:
    """Words in lower case; `snake_case`, `camelCase` and `URLsOfPages` are split."""
    return [word.lower() for word in _WORD.findall(_CAMEL.sub(" ", text[:limit]))]


def stems_of(word: str, *, gerunds: bool = False) -> Iterator[str]:
    """What a word may be a form of: `sends`, `copies`.

    Args:
        word: The word.
        gerunds: Whether `making` is `make`. In names it is not: a booking is a thing.
    """
    for ending, stem in (*_ENDINGS, *(_GERUNDS if gerunds else ())):
        if word.endswith(ending):
            yield word.removesuffix(ending) + stem
    if gerunds:
        yield _DOUBLED.sub(r"\1", word)


def is_any(word: str, vocabulary: frozenset[str], *, gerunds: bool = False) -> bool:
    """Whether a word is known, also with an ending (`stems_of`)."""
    return word in vocabulary or not vocabulary.isdisjoint(stems_of(word, gerunds=gerunds))


def first_of(
    candidates: Iterable[str], vocabulary: frozenset[str], *, gerunds: bool = False
) -> str:
    """The first word that is known, or an empty text."""
    return next((word for word in candidates if is_any(word, vocabulary, gerunds=gerunds)), "")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Verbs

# Verbs that can also mean to act are left out, such as `open` (a file, a valve), `check` (in, out).
READS = _words("""
    browse count crawl describe download examine extract fetch find get grep inspect list look
    lookup peek preview query read recall recognize retrieve scan scrape search show stat summarize
    tail track transcribe view
""")
ACTS = _words("""
    accept add adjust alter append apply approve archive assign attach authorize ban block broadcast
    buy cancel clear close configure confirm connect create delete deliver deploy destroy disable
    discard dispatch donate drop edit empty enable erase evaluate exec execute fill forward fulfill
    give insert install invite invoke join kick kill launch lend make merge modify mute navigate
    notify pay provision publish purge put reboot refund register reject remove rename repair
    reply resize respond revoke save sell send shutdown submit subscribe switch sync tell
    terminate toggle trigger upload wipe withdraw write
""")
# Verbs that are nouns as well: `order_food` acts, `get_order` does not.
ALSO_NOUNS = _words("""
    book call change charge click comment commit copy email export file flash format fund grant
    import invoice issue lock log mail mark message move order patch ping place post press print
    promote purchase push release rent report request reserve reset run schedule set share sign
    speak start stop store swap tip trade transfer trash tweet type update upgrade vote wire
""")
# Verbs with a prefix are as these: `reassign`, `unlock`, `overwrite`.
PREFIXES = ("over", "re", "un")
# Descriptions of readers may use these verbs; they do not use the other acting verbs.
WEAK = _words("""
    accept add append apply approve block clear close configure confirm connect edit empty enable
    fill give join make merge mute put register respond save switch tell
""")
COMPUTES = _words("""
    average calculate calculator compare compute convert decode digest divide encode hash math max
    median min multiply now random round sort subtract sum time today
""")
JOINING = _words("and n or plus then")
# Verbs of tools that create or send something; their texts do not decide what it is done to.
COMPOSES = _words("""
    add append comment compose create draft email mail message notify post publish reply respond
    schedule send share tell write
""")

# Arguments

# Arguments that decide what is run or asked, or where something is read.
_SITES = _words("endpoint host hostname href link uri url webhook website")
_QUERIES = _words("cypher database db graphql query sparql sql")
_CODE = _words("bash cmd code command console eval exec execute expression script shell terminal")
CODE = _SITES | _CODE | _words("program query sql statement")
PLACES_TO_READ = CODE - {"query", "code"} | _words(
    "dir directory file filename filepath folder path"
)
DATABASES = _QUERIES - {"query"}
# Acting tools with these words return foreign content: a page, a table, an output.
ANSWERS = (
    _SITES
    | _QUERIES
    | _CODE
    | _words(
        "ask browser call click http https import invoke navigate ping python receive request run "
        "submit sync web"
    )
)
# Text that is executed, or followed later, is more than text.
RUN = (
    _QUERIES
    | _CODE
    | _words("""
    config configuration instruction macro memory permission policy program prompt role rule run
    setting statement template workflow
""")
)
# Text that somebody reads.
CONTENTS = _words("""
    body caption comment content description html markdown memo message note reason remark summary
    text
""")
# Text that also identifies, unless the tool creates what it names.
TITLES = _words("headline heading subject title topic")
# `reply_to_message`, for example, is a reference and not a text.
BINDING = _words("by from id to")
EVENTS = _words("appointment calendar event meeting reminder")
PLACES = _words("location place venue")
# Rights, secrets and money: an approval of one call does not make them a matter for data.
STRICT = _words("""
    access admin amount authorize code credential deposit donate fund grant iban invest
    money otp passphrase password pay payee payment payout permission pin privilege purchase refund
    role secret token transaction transfer withdraw
""")
# An option with these words decides who sees or gets something.
EXPOSING = _words("force notify private public recursive share visibility")

# Nouns

# What people write. The results of a reader of these are words of others.
WRITTEN = (
    CONTENTS
    | EVENTS
    | _words("""
    answer article attachment author bio blog channel chat commit complaint conversation diff
    discussion doc document email emails feed feedback file form forum guest inbox internet
    invitation issue issues letter listing log mail mailbox mails marketplace news notes opinion
    page post posts pull question rating reply report request review reviewer seller snippet story
    stranger submission suggestion survey task testimonial thread ticket transaction transcript
    tweet visitor wall web webpage website wiki
""")
)
# Somebody is the author of what is returned.
AUTHORED = _words("authored gave posted submitted typed uploaded written wrote")
# Fields that only the system fills, or that have no room for a sentence.
DATA = _words("""
    age amount availability balance boolean cost count date day deadline distance duration
    expiration expiry fare fee flag hour iban id level minute month number percent percentage phase
    position price quantity quota rank rate score second size slot state status temperature time
    timestamp total unit usage version weekday weight year
""")
# Names of things: who chose them is unknown.
NAMED = TITLES | _words("detail label name nickname")
# Readers of these return the records of the caller or of the service.
_PEOPLE = _words("colleague contact coworker employee phonebook staff")
_CATALOGUE = _words("""
    airline airport bus car catalog catalogue currency flight holiday hotel inventory menu pricing
    product restaurant room seat sku tariff timetable train
""")
CLOCK = _words("timezone today tomorrow week yesterday zone")
RECORDS = _PEOPLE | _CATALOGUE | CLOCK
# What may be said of a record.
ATTRIBUTES = _words("address brand category city color email phone schedule type")
GENERIC = _words("""
    a all an and current data entry info information item list my next object record result the
""")
# Words of the caller. The `users` are others.
CALLER = _words("account card cards details me my name own preferences profile self settings user")
PREPOSITIONS = _words("about as at available by for from in of on per to under with within")
# Other words in the names of tools that only compute.
COMPUTED = (
    DATA
    | GENERIC
    | PREPOSITIONS
    | _words("clock csv currency expression int json length string text tool two utc value zone")
)
# A tool whose words include one of a group may write into the store of the others of that group.
STORES = (
    _PEOPLE | _words("member people person"),
    _CATALOGUE | _words("price"),
    _words("account balance bank bill card iban money order payment saving transfer"),
)
ANY_STORE = GENERIC | PREPOSITIONS | _words("append add create field row table value write")
# Fields of results that name people and amounts, or that are secrets, stay what others wrote.
CHOSEN_BY_OTHERS = (
    _PEOPLE
    | STRICT
    | _words("""
    account assignee author balance bcc by cc cost creator customer email from member owner party
    payer person price recipient reporter requester sender target to total user
""")
)
