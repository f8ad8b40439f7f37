"""The behaviour of a tool, guessed from its definition: whether it reads, acts, or computes.

Name, description and schema come from the author of the tool, who may be anyone. What they leave
open counts as reading and acting, and becomes a question to the author of the policy.

A policy becomes more permissive in two cases only. A reader returns no foreign content if it is
named after records or data, or its description says that it returns data, and nothing mentions what
people write. A tool that acts may take its contents from anywhere, if trusted data choose what it
acts on.
"""

import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, takewhile
from typing import Any

from langchain_sequrity.local import tool_words as vocabulary
from langchain_sequrity.local.tool_words import first_of, is_any, stems_of, words
from langchain_sequrity.wire.tools import name_of, read_function

_DESCRIPTION = 2_000
# Places of verbs in a description: at the beginning of a sentence, and after joining words.
_SENTENCE = re.compile(
    r"(?:^|[.;:!?\n])[\s*`_-]{0,9}([a-z]{2,20})\b(?:[ ]([a-z]{2,9})\b)?", re.IGNORECASE
)
_JOINED = re.compile(
    r"(?:(?:,|\b(?:and|or|then|also|to|will|can|may)\b)[\s*`_-]{1,9}){1,3}([a-z]{2,20})\b",
    re.IGNORECASE,
)
_INFLECTED = re.compile(r"\b[a-z]{2,20}(?:s|ing)\b", re.IGNORECASE)
# What follows these words is what is looked for, and not what is returned.
_CRITERIA = re.compile(
    r"\b(?<!search )(?<!searches )(?<!look )(?<!looks )(?:after|before|between|by|for|given|if|"
    r"matching|per|since|until|when|where|whose)\b.*?"
    r"(?=[.;:!?\n]|\b(?:as|including|returns?|with)\b|$)",
    re.IGNORECASE | re.DOTALL,
)
# Neither the status of a message nor an inbox's size is a message or an inbox.
_OF = re.compile(
    r"\b([a-z]+) of [^,.;:!?\n]*?(?=[,.;:!?\n]|\b(?:and|including|with)\b|$)",
    re.IGNORECASE,
)
# Where something is looked for. Others may write there, but no data are returned because of it.
_SOURCES = re.compile(
    r"\b(?:about|at|during|from|in|of|on|over)\b.*?"
    r"(?=[,.;:!?\n]|\b(?:and|as|including|returns?|with)\b|$)",
    re.IGNORECASE | re.DOTALL,
)
_OF_CALLER = re.compile(
    r"\b(?:my|your|(?:user|account|caller)['\u2019]s|"
    r"(?:of|by) (?:the|this) (?:user|account|caller))\b",
    re.IGNORECASE,
)
# "Returns an error message if there is none."
_ON_ERROR = re.compile(r"\b(?:errors?|exceptions?|raises)\b", re.IGNORECASE)
_AFTER_SENTENCE = re.compile(r"(?<=[.!?\n])")
_POSSESSIVE = re.compile(r"\b\w+['\u2019](?:s\b|(?=\s))")
_BREAK = re.compile(r"[^\w\s'\u2019-]+|\b(?:and|or)\b")
# Tool servers add their own name as a prefix: `github__get_file`.
_PARTS = re.compile(r"__+|[.:/]")
_AFTER_NOUNS = frozenset({"by", "from", "of", "on", "that", "which", "with"})
_NAMEABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_RETURNS = "does it return what others wrote"
_FEWEST_WITH_PREFIX = 3
_MOST_SCHEMAS = 300


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
        strict: Those of them that no person can approve either, such as secrets; all if the tool is
            for rights, secrets or money.
        is_strict: Whether that is so for all arguments.
        store: Words of the store that it reads, if only the caller or the service writes there.
        stores_text: Words of the store into which it may write text from anywhere.
        fields: Paths of the fields of its results that only the system fills.
        question: What the author of the policy should answer; empty if the definition is clear.
    """

    reads: bool
    acts: bool
    reason: str
    steering: tuple[str, ...] | None = ()
    optional: frozenset[str] = frozenset()
    strict: frozenset[str] = frozenset()
    is_strict: bool = False
    store: frozenset[str] = frozenset()
    stores_text: frozenset[str] = frozenset()
    fields: tuple[str, ...] = ()
    question: str = ""

    def may_return_text_of(self, other: "Behaviour") -> bool:
        """Whether another tool may write text into the store that this one reads."""
        if other.stores_text == _ANY_STORE:
            return bool(self.store)
        return any(is_any(word, self.store) for word in other.stores_text)


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
        self.required = (
            [name for name in required if isinstance(name, str)]
            if isinstance(required, list)
            else []
        )
        # Whether other arguments are not allowed.
        self.is_closed = (
            isinstance(properties, Mapping) and schema.get("additionalProperties", False) is False
        )
        self.types = {str(name): _value_schema(part, schema) for name, part in arguments.items()}
        # A call without one of these arguments has a known value.
        self._with_default = {
            str(n)
            for n, part in arguments.items()
            if isinstance(part, Mapping) and "default" in part
        }
        self.names = tuple(self.types)
        self.words = {word for name in self.names for word in words(name)}

    def targets(self, texts: frozenset[str], *, has_choices: bool) -> list[str]:
        """The arguments that are not plain text, or options of which any is harmless.

        Args:
            texts: Last words of the names of texts.
            has_choices: Whether there may be such options.
        """
        return [
            name
            for name in self.names
            if not self._is_text(name, texts) and not (has_choices and self._is_choice(name))
        ]

    def can_name(self, names: Iterable[str]) -> bool:
        """Whether rules on these arguments, and no others, are possible and never in doubt."""
        return self.is_closed and all(
            _NAMEABLE.match(name) and (name in self.required or name in self._with_default)
            for name in names
        )

    def _is_text(self, name: str, texts: frozenset[str]) -> bool:
        """Whether an argument is plain text; `message_id`, for example, is not."""
        name_words, json_type = words(name), self.types[name].get("type", "string")
        return (
            bool(name_words)
            and is_any(name_words[-1], texts)
            and vocabulary.BINDING.isdisjoint(name_words)
            and json_type in ("string", "array")
            and self.types[name].keys().isdisjoint({"format", "enum"})
        )

    def _is_choice(self, name: str) -> bool:
        return _is_small(self.types[name]) and not first_of(
            words(name), vocabulary.STRICT | vocabulary.EXPOSING
        )


def _value_schema(part: Any, root: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema of a value, without a reference and without `null`."""
    for _ in range(3):  # a reference to an optional type
        if not isinstance(part, Mapping):
            return {}
        reference = part.get("$ref")
        if isinstance(reference, str):
            definitions = root.get("$defs", root.get("definitions"))
            name = reference.rpartition("/")[2]
            part = definitions.get(name) if isinstance(definitions, Mapping) else None
        elif isinstance(parts := part.get("anyOf", part.get("oneOf")), list):
            branches = [branch for branch in parts if branch != {"type": "null"}]
            part = branches[0] if len(branches) == 1 else {"type": "any"}
        elif isinstance(json_types := part.get("type"), list):
            branches = [json_type for json_type in json_types if json_type != "null"]
            part = {**part, "type": branches[0] if len(branches) == 1 else "any"}
        else:
            return part
    return part if isinstance(part, Mapping) else {}


def _is_small(schema: Mapping[str, Any]) -> bool:
    """Whether a value is one of few, or a time."""
    return (
        schema.get("type") == "boolean"
        or "enum" in schema
        or "const" in schema
        or schema.get("format") in ("date", "date-time", "time", "duration")
    )


def behaviours_of(tools: Iterable[Mapping[str, Any]]) -> dict[str, Behaviour]:
    """Guess the behaviour of each tool of a set.

    Args:
        tools: Function tools in the neutral form.

    Returns:
        The behaviours by name.
    """
    by_name = {name_of(tool) or "": tool for tool in tools}
    prefix = _vendor_prefix(list(by_name))
    return {name: behaviour_of(tool, prefix=prefix) for name, tool in by_name.items()}


def _vendor_prefix(names: Sequence[str]) -> int:
    """The number of words that begin all names, up to the first verb."""
    if len(names) < _FEWEST_WITH_PREFIX:
        return 0
    all_words = [words(name) for name in names]
    verbs = vocabulary.READS | vocabulary.ACTS | vocabulary.COMPUTES
    # Some name ends where `zip` does, and each name needs a word after the prefix.
    shared = takewhile(lambda of_all: len({*of_all}) == 1, zip(*all_words, strict=False))
    count = sum(1 for _ in takewhile(lambda of_all: not is_any(of_all[0], verbs), shared))
    return min(count, min(map(len, all_words)) - 1) if all(all_words) else 0


def behaviour_of(tool: Mapping[str, Any], *, prefix: int = 0) -> Behaviour:
    """Guess the behaviour of a tool.

    Args:
        tool: A function tool in the neutral form.
        prefix: The number of words at the beginning of its name that are no verbs.

    Returns:
        The behaviour; without other evidence, the tool reads and acts.
    """
    function = read_function(tool)
    if function is None:
        return Behaviour(reads=True, acts=True, reason="not a function", steering=None)
    definition = _Definition(function, prefix)
    if acting := definition.acting_word:
        return definition.acting(f"the name has `{acting}`")
    if verb := _described_verb(definition.description):
        reads = "does it change anything" if definition.reading_word else _RETURNS
        return definition.acting(f"the description has `{verb}`", f"{reads}?")
    if definition.reading_word:
        return definition.reading()
    if computing := definition.computing_word:
        return Behaviour(reads=False, acts=False, reason=f"the name has `{computing}`")
    return definition.acting("the name is unclear", f"does it change anything, and {_RETURNS}?")


class _Definition:
    """A function tool, taken apart.

    Args:
        function: The fields of the function.
        prefix: The number of words at the beginning of its name that are no verbs.
    """

    def __init__(self, function: Mapping[str, Any], prefix: int) -> None:
        *servers, last = _PARTS.split(function["name"])
        self._server = words(" ".join(servers))
        # A name may end with its server: `contacts.search`.
        self._own_words = words(last)[max(0, prefix - len(self._server)) :]
        self.words = words(function["name"])
        self.description: str = function.get("description", "")[:_DESCRIPTION]
        self.schema = _Schema(function.get("parameters"))
        # A page in JSON, for example, is all written by others.
        self._asks_others = not self.schema.words.isdisjoint(vocabulary.CODE - _MILD)
        output = function.get("output_schema")
        self._output = output if isinstance(output, Mapping) else {}

    @cached_property
    def acting_word(self) -> str:
        """The word of the name that shows that the tool acts, or an empty text."""
        if acting := first_of(self._server, vocabulary.ACTS):
            return acting
        harmless = vocabulary.READS | vocabulary.COMPUTES | vocabulary.COMPUTED
        is_noun = False
        for before, word in pairwise(["", *self._own_words]):
            is_joined = before in vocabulary.JOINING
            is_verb = not is_noun or is_joined
            verbs = vocabulary.ACTS | (vocabulary.ALSO_NOUNS if is_verb else _NO_WORDS)
            is_plural = not is_verb and word not in verbs  # `list_replies`
            if not is_plural and (is_any(word, verbs) or (is_verb and is_any(_root(word), verbs))):
                return word
            if is_joined and not is_any(word, harmless):
                return f"{before} {word}"
            is_noun = is_noun or is_any(word, vocabulary.READS)
        return ""

    @cached_property
    def reading_word(self) -> str:
        """The word of the name that shows that the tool reads, or an empty text.

        To check can also mean to check in or out, so it is not enough alone.
        """
        is_checking = self._own_words[:1] == ["check"] and self._own_content[0]
        return first_of(self.words, vocabulary.READS) or ("check" if is_checking else "")

    @property
    def computing_word(self) -> str:
        """The word of the name that shows that the tool only computes, or an empty text."""
        computing = vocabulary.COMPUTES | vocabulary.COMPUTED
        asks = not self.schema.words.isdisjoint(vocabulary.CODE - {"expression"})
        is_clear = not asks and all(is_any(word, computing) for word in self.words)
        return first_of(self.words, vocabulary.COMPUTES) if is_clear else ""

    # Tools that act

    def acting(self, reason: str, question: str = "") -> Behaviour:
        """The behaviour of a tool that acts, perhaps."""
        steering = self._targets()
        bound = self.schema.names if steering is None else steering
        answers = first_of(self.words, vocabulary.READS | vocabulary.ANSWERS) or self._asks_others
        takes_text = len(bound) < len(self.schema.names)
        stores = self._written_stores() if takes_text else _NO_WORDS
        return Behaviour(
            reads=bool(answers or question or not self.schema.words.isdisjoint(_MILD)),
            acts=True,
            reason=reason,
            steering=steering,
            optional=frozenset(bound) - {*self.schema.required},
            strict=frozenset(n for n in bound if first_of(words(n), vocabulary.STRICT)),
            is_strict=bool(first_of(self.words, vocabulary.STRICT | vocabulary.RUN)),
            stores_text=stores,
            # The labels of texts pass to the result, and the ids in it are still the system's.
            fields=self._system_fields() if stores and not (answers or question) else (),
            question=question,
        )

    def _targets(self) -> tuple[str, ...] | None:
        """The arguments of an acting tool that data from outside must not choose.

        Texts may come from anywhere only if another argument is always given and decides for whom
        or what they are. A tool that only has a text may reach anyone.
        """
        all_words = {*self.words, *words(self.description), *self.schema.words}
        if first_of(all_words, vocabulary.RUN):
            return None
        for texts, has_choices in self._free_arguments():
            names = self.schema.targets(texts, has_choices=has_choices)
            if self.schema.can_name(names) and not {*self.schema.required}.isdisjoint(names):
                return tuple(names)
        return None

    def _free_arguments(self) -> Iterator[tuple[frozenset[str], bool]]:
        """Which arguments may come from anywhere: last words of texts, and whether choices may.

        Most first: if nothing is left that trusted data choose, the next is tried.
        """
        if self._only_composes():
            titles = vocabulary.CONTENTS | vocabulary.TITLES
            if first_of(self.words, vocabulary.EVENTS):
                titles |= vocabulary.PLACES
            yield titles, True
            yield titles, False
        yield vocabulary.CONTENTS, False

    def _only_composes(self) -> bool:
        verbs = [
            word
            for before, word in pairwise(["and", *self._own_words])
            if is_any(word, vocabulary.ACTS | vocabulary.READS)
            or (before in vocabulary.JOINING and is_any(word, vocabulary.ALSO_NOUNS))
        ]
        return bool(verbs) and all(is_any(verb, vocabulary.COMPOSES) for verb in verbs)

    def _written_stores(self) -> frozenset[str]:
        """The words that may name the store into which an acting tool writes."""
        if all(is_any(word, vocabulary.ANY_STORE) for word in self.words):
            return _ANY_STORE
        return frozenset({*self.words, *words(self.description), *self.schema.words})

    # Readers

    def reading(self) -> Behaviour:
        """The behaviour of a tool that only reads."""
        own_word, store = self._own_content
        returned = own_word or self._written_word
        is_unclear = not (returned or self._asks_others)
        is_database = bool(first_of(self.words, vocabulary.DATABASES))
        steering = self._places_to_read()
        return Behaviour(
            reads=not own_word,
            acts=False,
            reason=f"it returns `{returned}`"
            if returned
            else f"the name has `{self.reading_word}`",
            steering=None if is_database else steering,
            optional=frozenset(steering or ()) - {*self.schema.required},
            is_strict=is_database,
            store=store,
            fields=() if own_word or self._asks_others else self._system_fields(),
            question="can others write what it returns?" if is_unclear else "",
        )

    def _places_to_read(self) -> tuple[str, ...] | None:
        """The arguments that decide where a reader reads; `None` if no rule can name them."""
        places = vocabulary.PLACES_TO_READ
        names = [name for name in self.schema.names if not places.isdisjoint(words(name))]
        return tuple(names) if self.schema.can_name(names) else None

    @cached_property
    def _own_content(self) -> tuple[str, frozenset[str]]:
        """The word that shows that a reader returns no foreign content, and the store of that.

        Both are empty for another reader. Data that a description lists have no store: there is no
        room for a text in them.
        """
        nouns = [word for word in self._own_words if not is_any(word, _ONLY_READS)]
        nouns = nouns or self._server
        is_about_caller = not self.schema.names and self.schema.is_closed
        if nouns and is_about_caller and {*nouns} <= vocabulary.CALLER | vocabulary.GENERIC:
            return nouns[0], vocabulary.CALLER
        if self._written_word or self._asks_others:
            return _NOT_OWN
        data = first_of(words(_SOURCES.sub(" ", self._returned)), vocabulary.DATA)
        if data and not first_of(words(self._returned), vocabulary.NAMED):
            return data, _NO_WORDS
        head, record = _head(nouns), first_of(nouns, vocabulary.RECORDS)
        attributes = vocabulary.ATTRIBUTES if record else _NO_WORDS
        # With a user as an argument, "the user's profile" is that of anybody.
        is_anybodys = first_of(self.schema.words, vocabulary.CHOSEN_BY_OTHERS)
        is_callers = "my" in nouns or (_OF_CALLER.search(self.description) and not is_anybodys)
        if is_callers or is_any(head, vocabulary.DATA | vocabulary.RECORDS | attributes):
            return head or nouns[0], _store_of(nouns)
        return _NOT_OWN

    @cached_property
    def _written_word(self) -> str:
        """The word that shows that people write what is returned, or an empty text."""
        authored = first_of(words(self.description), vocabulary.AUTHORED)
        name = takewhile(lambda word: word != "by", self._own_words)
        phrases = (self._server, [*name], *map(words, _BREAK.split(self._returned)))
        return authored or next(filter(None, map(_written_in, phrases)), "")

    @cached_property
    def _returned(self) -> str:
        """The description without what does not say what is returned."""
        sentences = _AFTER_SENTENCE.split(self.description)
        text = "".join(sentence for sentence in sentences if not _ON_ERROR.search(sentence))
        text = _POSSESSIVE.sub(" ", _CRITERIA.sub(" ", text))
        return _OF.sub(lambda m: m[1] if is_any(m[1].lower(), vocabulary.DATA) else m[0], text)

    def _system_fields(self) -> tuple[str, ...]:
        """The fields of its results that only the system fills, by their schema."""
        paths = _fields(self._output)
        return tuple("/".join(map(_escaped, path)) for path in paths)


_ONLY_READS = vocabulary.READS - vocabulary.DATA  # a count is a noun too
_SHORT = vocabulary.DATA | {"address"}
_MILD = frozenset({"code", "query"})  # also of airports, and of a search
_NO_WORDS: frozenset[str] = frozenset()
_NOT_OWN = "", _NO_WORDS
_ANY_STORE = frozenset({"*"})


def _escaped(name: str) -> str:
    """A name in a path of a field (JSON Pointer)."""
    return name.replace("~", "~0").replace("/", "~1")


def _root(word: str) -> str:
    """A verb without its prefix: `assign` of `reassign`."""
    if is_any(word, vocabulary.READS):
        return ""
    return next((word.removeprefix(p) for p in vocabulary.PREFIXES if word.startswith(p)), "")


def _head(nouns: Sequence[str]) -> str:
    """The noun that says what is returned: `prices` of `hotel_prices_in_city`."""
    before = takewhile(lambda noun: noun not in vocabulary.PREPOSITIONS, nouns)
    nouns = [noun for noun in before if not is_any(noun, vocabulary.GENERIC)]
    return nouns[-1] if nouns else ""


def _written_in(phrase: Sequence[str]) -> str:
    """The word of a phrase that is for what people write; a pull request status is a status."""
    written, following = "", ""
    for word in reversed(phrase):
        if word in vocabulary.WRITTEN and is_any(following, _SHORT):
            continue  # it only says what the following word belongs to
        if is_any(word, vocabulary.WRITTEN):
            written = word
        following = word
    return written


def _store_of(nouns: Iterable[str]) -> frozenset[str]:
    """The words of the store that a reader with these nouns reads."""
    stems = frozenset(stem for noun in nouns for stem in (noun, *stems_of(noun)))
    groups = (group for group in vocabulary.STORES if stems & group)
    no_stores = vocabulary.DATA | vocabulary.GENERIC | vocabulary.PREPOSITIONS | vocabulary.CLOCK
    return (stems - no_stores).union(*groups)


def _fields(root: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """The paths of the fields that only the system fills, in lists too."""
    schemas: deque[tuple[tuple[str, ...], Any]] = deque([((), root)])
    for _ in range(_MOST_SCHEMAS):  # a schema may contain itself
        if not schemas:
            return
        path, part = schemas.popleft()
        schema = _value_schema(part, root)
        if path and _is_of_system(path[-1], schema):
            yield path
        elif "items" in schema:
            schemas.append((path, schema["items"]))
        elif isinstance(properties := schema.get("properties"), Mapping):
            schemas.extend(((*path, str(name)), part) for name, part in properties.items())


def _is_of_system(name: str, schema: Mapping[str, Any]) -> bool:
    """Whether a field is an id or has no room for a text, and is about no person and no amount."""
    name_words, json_type = words(name), schema.get("type")
    if not name_words or first_of(name_words, vocabulary.CHOSEN_BY_OTHERS):
        return False
    is_id = json_type == "string" and name_words[-1] in ("id", "uuid")
    is_number = json_type in ("integer", "number")
    return is_id or is_number or schema.get("format") == "uuid" or _is_small(schema)


def _described_verb(description: str) -> str:
    """The word of a description that shows that the tool acts, or an empty text."""
    for first, second in _SENTENCE.findall(description):
        # "Messages of a ticket" is no sentence with a verb.
        is_noun = first.lower().endswith("s") and second.lower() in _AFTER_NOUNS
        verbs = vocabulary.ACTS if is_noun else vocabulary.ACTS | vocabulary.ALSO_NOUNS
        if is_any(first.lower(), verbs, gerunds=True):
            return str(first.lower())
    strong = vocabulary.ACTS - vocabulary.WEAK
    for position, verbs in ((_JOINED, vocabulary.ACTS), (_INFLECTED, strong)):
        candidates = map(str.lower, position.findall(description))
        if verb := first_of(candidates, verbs, gerunds=True):
            return verb
    return ""
