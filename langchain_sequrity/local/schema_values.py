"""Values that fit a JSON Schema, made from the schema and from facts in a prompt.

Schemas come from clients and may be anything: keywords of wrong types are ignored, references may
be circular, and depth, size and the time of patterns are limited.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from itertools import chain, zip_longest
from operator import ge, gt, le, lt
from typing import Any
from uuid import UUID

from langchain_sequrity.display import plain
from langchain_sequrity.local.refusals import refuse
from langchain_sequrity.patterns import Pattern, PatternError, PatternTooLarge, TimeBudget
from langchain_sequrity.strict_json import loads

_DEEPEST = 16
_OPTIONAL_DEPTH = 3
_MOST_VALUES = 2_000
_MOST_OPTIONS = 200  # options of an enum, and names that a prompt states
_MOST_ITEMS = 20
_COPIED_PER_VALUE = 100  # characters, or parts of a pattern
_GREATEST = 1e15  # above this, floats skip whole numbers
_MOST_CHARACTERS = 8_000
_MOST_TEXT = 200
_MOST_LENGTH = 2_000
_AROUND_WORDS = ".,;:!?()[]{}<>\"'`"

# All patterns are linear: repetitions have small bounds, and the text is cut.
_QUOTED = re.compile(
    r"""(?<!\w)'([^'\n]{1,400})'(?!\w)|"([^"\n]{1,400})"|`([^`\n]{1,400})`"""
    r"|\u201c([^\u201d\n]{1,400})\u201d|\u2018([^\u2019\n]{1,400})\u2019"
)
_NUMBER = re.compile(r"(?<![\w.:/-])-?\d{1,15}(?:\.\d{1,15})?(?![\w:/-]|\.\d)")
_NAME = re.compile(r"(?<![\w-])([^\W\d][\w-]{0,60})[\"'`]?\s?[:=]\s?")
_BARE = re.compile(r"[^\s,;()]{1,400}")
_FORMATS = {
    "date": (r"\d{4}-\d\d-\d\d", "2025-01-01"),
    "date-time": (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\S{1,20}", "2025-01-01T00:00:00Z"),
    "time": (r"\d\d:\d\d:\d\d\S{0,20}", "00:00:00Z"),
    "email": (r"[\w.+-]{1,64}@[\w-]{1,63}(\.[\w-]{1,63}){1,4}", "someone@example.com"),
    "uri": (r"[a-z][a-z+.-]{1,20}://\S+", "https://example.com/"),
    "uuid": (r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", str(UUID(int=0, version=4))),
    "ipv4": (r"\d{1,3}(\.\d{1,3}){3}", "127.0.0.1"),
    "ipv6": (r"[0-9a-fA-F:]*:[0-9a-fA-F:.]*", "::1"),
    "hostname": (r"[\w-]{1,63}(\.[\w-]{1,63})+", "localhost"),
    "duration": (r"P[\dYMWDTHS.]+", "PT1H"),
}
_BOUNDS = {"minimum": ge, "maximum": le, "exclusiveMinimum": gt, "exclusiveMaximum": lt}

Schema = Mapping[str, Any]


class PromptFacts:
    """Values that a prompt states and quotes. Each is used once.

    Args:
        text: The prompt.

    Attributes:
        text: The prompt, cut to 8,000 characters.
        quotes: Quoted texts, in order.
        numbers: Numbers outside of quotes and words, in order.
        words: Words without punctuation around them, in order.
    """

    def __init__(self, text: str) -> None:
        self.text = text[:_MOST_CHARACTERS].strip()
        numbers = _NUMBER.findall(_QUOTED.sub(" ", self.text))
        self.numbers: list[Any] = [float(n) if "." in n else int(n) for n in numbers]
        self.words = [word.strip(_AROUND_WORDS) for word in self.text.split()]
        self._lower = self.text.lower()
        pairs: list[tuple[str, Any]] = []
        end = 0
        while len(pairs) < _MOST_OPTIONS and (match := _NAME.search(self.text, end)):
            value, end = _value_at(self.text, match.end())
            pairs.append((_key(match[1]), value))
        self._stated = dict(reversed(pairs))  # the first value of a name counts
        self.quotes = [quote for quote in quoted(self.text) if _key(quote) not in self._stated]

    def stated_value(self, name: str) -> Any:
        """The value of `name: value` or `name=value`; `None` if there is none."""
        return self._stated.get(_key(name))

    def mentions(self, option: Any) -> bool:
        """Whether a text occurs as whole words, in any case."""
        value = str(option).lower() if isinstance(option, str | int | float) else ""
        if not 0 < len(value) <= _MOST_LENGTH or value not in self._lower:
            return False
        return re.search(rf"(?<!\w){re.escape(value)}(?!\w)", self._lower) is not None

    def use(self, value: Any) -> Any:
        """Return a value, and mark it as used."""
        for values in (self.quotes, self.numbers, self.words):
            if value in values:
                values.remove(value)
        return value


def quoted(text: str) -> list[str]:
    """All quoted texts, in order."""
    return [m[m.lastindex or 0].strip() for m in _QUOTED.finditer(text[:_MOST_CHARACTERS])]


def _key(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()


def _value_at(text: str, start: int) -> tuple[Any, int]:
    """The value that begins here, and its end: names inside of it are not facts."""
    if match := _QUOTED.match(text, start):
        return quoted(match[0])[0], match.end()
    if text.startswith(("{", "["), start):
        try:
            return json.JSONDecoder().raw_decode(text, start)
        except (ValueError, RecursionError):
            return None, start
    word = bare[0].strip(_AROUND_WORDS) if (bare := _BARE.match(text, start)) else ""
    try:
        return loads(word), start
    except ValueError:
        return word or None, start


def value_for_schema(schema: Any, prompt: PromptFacts) -> Any:
    """Make a value that fits a JSON Schema.

    The first source that fits is used: constants, values that the prompt states by name
    (`limit: 5`, `city="Rome"`), the default, quoted texts and numbers in their order, examples, and
    finally the smallest value that fits. If nothing else fills a text, it is the prompt. An
    optional property is left out if it has a default, or is nested more than three levels deep,
    unless the prompt states it.

    Args:
        schema: The schema. It may have local references (`#/$defs/…`) only.
        prompt: The facts; each is used once.

    Returns:
        The value: plain JSON.

    Raises:
        StatusError: 400 for a `pattern` that is too large to compile.

    Example:
        ```python
        from langchain_sequrity.local.schema_values import PromptFacts, value_for_schema

        schema = {"type": "object", "properties": {"city": {"type": "string"}}}
        prompt = PromptFacts("The weather in 'Rome', please")
        assert value_for_schema(schema, prompt) == {"city": "Rome"}
        ```
    """
    return _Filler(_mapping(schema), prompt).value(schema, "")


def _mapping(value: Any) -> Schema:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _number(value: Any) -> float | None:
    """A number that is not too large; `None` for everything else."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and abs(value) < _GREATEST else None


def _size(schema: Schema, key: str, default: int) -> int:
    size = _number(schema.get(key))
    return default if size is None else int(min(max(size, 0), _MOST_LENGTH))


class _Filler:
    """Fills one schema. `stated` is the value that the prompt states, or `None`."""

    def __init__(self, root: Schema, prompt: PromptFacts) -> None:
        self._root = root
        self._prompt = prompt
        self._budget = _MOST_VALUES
        self._depth = 0
        self._time = TimeBudget(0.05)  # seconds for all patterns

    def value(self, schema: Any, name: str, stated: Any = None) -> Any:
        self._budget -= 1
        if self._budget < 0 or self._depth > _DEEPEST:
            return None
        self._depth += 1
        try:
            resolved = self._resolved(_mapping(schema))
            self._budget -= len(_mapping(resolved.get("properties"))) // _MOST_ITEMS
            return self._value(resolved, name, stated)
        finally:
            self._depth -= 1

    def _value(self, schema: Schema, name: str, stated: Any) -> Any:
        if "const" in schema:
            return self._copied(schema["const"])
        if options := _list(schema.get("enum"))[:_MOST_OPTIONS]:
            return self._option(schema, options, stated)
        if stated is None and "default" in schema:
            return self._copied(schema["default"])
        if branches := _branches(schema):
            return self._branch(schema, branches, name, stated)
        return self._typed_value(schema, name, stated)

    def _typed_value(self, schema: Schema, name: str, stated: Any) -> Any:
        implied = "object" if "properties" in schema else "array" if "items" in schema else "string"
        schema_type = schema.get("type", implied)
        if schema_type == "null":
            return None
        if schema_type == "boolean":
            return stated is True or (isinstance(stated, str) and stated.lower() in ("yes", "true"))
        if schema_type == "object":
            return self._object(schema, stated)
        if schema_type == "array":
            return self._array(schema, name, stated)
        if schema_type in ("integer", "number"):
            return self._number_value(schema, stated, whole=schema_type == "integer")
        return self._text(schema, name, stated)

    def _copied(self, value: Any) -> Any:
        """Count the size of a value: it is copied each time that its schema is used."""
        self._budget -= len(str(value)) // _COPIED_PER_VALUE
        return value

    # Structure

    def _resolved(self, schema: Schema) -> Schema:
        """Follow references and merge `allOf`."""
        schema = self._follow_references(schema)
        for part in _list(schema.get("allOf"))[:_MOST_ITEMS]:
            schema = _merged(schema, self._follow_references(_mapping(part)))
        return schema

    def _follow_references(self, schema: Schema) -> Schema:
        for _ in range(_DEEPEST):
            if isinstance(reference := schema.get("$ref"), str):
                rest = {key: value for key, value in schema.items() if key != "$ref"}
                schema = {**self._target(reference), **rest}
        return schema

    def _target(self, reference: str) -> Schema:
        node: Any = self._root
        for step in reference.removeprefix("#").split("/")[1:]:
            node = _mapping(node).get(step.replace("~1", "/").replace("~0", "~"))
        return _mapping(node)

    def _branch(self, schema: Schema, branches: list[Any], name: str, stated: Any) -> Any:
        """The first branch that keeps the stated value; null if nothing is stated and null fits."""
        outer = {key: value for key, value in schema.items() if key not in ("anyOf", "oneOf")}
        resolved = [_merged(self._resolved(_mapping(branch)), outer) for branch in branches]
        non_null = [branch for branch in resolved if branch.get("type") != "null"]
        if not non_null or (stated is None and len(non_null) < len(resolved)):
            return None
        for branch in non_null if stated is not None else ():
            value = self.value(branch, name, stated)
            if isinstance(value, type(stated)) and value == stated:
                return value
        return self.value(non_null[0], name, stated)

    def _object(self, schema: Schema, stated: Any) -> dict[str, Any]:
        properties, fields = _mapping(schema.get("properties")), _mapping(stated)
        stated_fields = {
            name: self._prompt.use(value)
            for name in properties
            if (value := fields.get(name, self._prompt.stated_value(name))) is not None
        }
        needed = {*stated_fields, *(k for k in _list(schema.get("required")) if isinstance(k, str))}
        # Deep inside, optional properties are left out: a schema may contain itself.
        is_open = self._depth <= _OPTIONAL_DEPTH
        return {
            name: self.value(inner, name, stated_fields.get(name))
            for name, inner in properties.items()
            if name in needed or (is_open and "default" not in _mapping(inner))
        }

    def _array(self, schema: Schema, name: str, stated: Any) -> list[Any]:
        least = min(_size(schema, "minItems", 0), _MOST_ITEMS)
        most = min(_size(schema, "maxItems", _MOST_ITEMS), _MOST_ITEMS)
        prefix, rest = _list(schema.get("prefixItems"))[:most], schema.get("items")
        values = stated if isinstance(stated, list) else self._candidates(_mapping(rest), stated)
        count = max(least, min(len(values), most), len(prefix))
        items = [*prefix, *[rest] * count][:count]
        return [self.value(item, name, value) for item, value in zip_longest(items, values[:count])]

    def _candidates(self, items: Schema, stated: Any) -> list[Any]:
        """Values of the prompt for the items of an array."""
        if stated is not None:
            return [stated]
        item, prompt = self._resolved(items), self._prompt
        if options := _list(item.get("enum"))[:_MOST_OPTIONS]:
            return [option for option in options if prompt.mentions(option)]
        free = {"integer": prompt.numbers, "number": prompt.numbers, "string": prompt.quotes}
        return [*free.get(str(item.get("type")), [])]

    # Values

    def _option(self, schema: Schema, options: list[Any], stated: Any) -> Any:
        default = schema.get("default", options[0])
        named = [option for option in options if option is not None and option == stated]
        candidates = chain(named, filter(self._prompt.mentions, options))
        return self._copied(next(candidates, default if default in options else options[0]))

    def _number_value(self, schema: Schema, stated: Any, *, whole: bool) -> Any:
        examples = _list(schema.get("examples"))[:_MOST_ITEMS]
        offered = [stated, *self._prompt.numbers, *examples, *_near_bounds(schema)]
        number = next((n for n in offered if _fits(schema, n, whole=whole)), 0)
        return self._prompt.use(int(number) if whole else number)

    def _text(self, schema: Schema, name: str, stated: Any) -> Any:
        fits, example = self._text_form(schema, name)
        texts = [*self._prompt.quotes]
        if isinstance(stated, str | int | float):
            # JSON in a prompt may contain escapes that UTF-8 cannot encode.
            texts.insert(0, str(stated).encode("utf-8", "replace").decode())
        examples = [text for text in _list(schema.get("examples")) if isinstance(text, str)][:1]
        last = (*examples, example, self._prompt.text[:_MOST_TEXT], name, "text")
        matching = filter(fits, (*texts, *self._prompt.words)) if fits else iter(texts)
        text = self._prompt.use(next(chain(matching, filter(None, last))))
        least, most = _size(schema, "minLength", 0), _size(schema, "maxLength", _MOST_LENGTH)
        return self._copied(text if fits else text[:most].ljust(least, "."))

    def _text_form(self, schema: Schema, name: str) -> tuple[Callable[[str], Any] | None, str]:
        """A check of the form of a text, and an example."""
        form, example = _FORMATS.get(str(schema.get("format")), ("", ""))
        pattern = schema.get("pattern") or (form and rf"\A(?:{form})\Z")
        if not pattern or not isinstance(pattern, str):
            return None, example
        try:
            compiled = Pattern(pattern)
        except PatternTooLarge as error:
            label = plain(name, limit=80)
            refuse(400, f"The `pattern` of `{label}` in a JSON Schema cannot be used: {error}.")
        except PatternError:  # other dialects have features that are not supported here
            return None, example
        self._budget -= compiled.measures.size // _COPIED_PER_VALUE
        return lambda text: compiled.finds_within(text, self._time), example


def _branches(schema: Schema) -> list[Any]:
    types = [{"type": type_name} for type_name in _list(schema.get("type"))]
    return (_list(schema.get("anyOf")) or _list(schema.get("oneOf")) or types)[:_MOST_ITEMS]


def _merged(schema: Schema, addition: Schema) -> Schema:
    properties = {**_mapping(schema.get("properties")), **_mapping(addition.get("properties"))}
    required = [*_list(schema.get("required")), *_list(addition.get("required"))]
    merged = {**addition, **schema}
    merged.pop("allOf", None)
    return {**merged, **({"properties": properties, "required": required} if properties else {})}


def _fits(schema: Schema, value: Any, *, whole: bool) -> bool:
    number, step = _number(value), _number(schema.get("multipleOf"))
    if number is None or (whole and number != int(number)) or (step and number % step):
        return False
    bounds = ((_number(schema.get(key)), holds) for key, holds in _BOUNDS.items())
    return all(bound is None or holds(number, bound) for bound, holds in bounds)


def _near_bounds(schema: Schema) -> list[float]:
    """Candidates for a number: 0, numbers at the bounds, and their middle."""
    step = max(abs(_number(schema.get("multipleOf")) or 1), 1e-9)
    bounds = [bound for key in _BOUNDS if (bound := _number(schema.get(key))) is not None]
    multiples = [math.floor(bound / step) + offset for bound in bounds for offset in (0, 1, -1)]
    return [0, *bounds, *(step * count for count in multiples), sum(bounds) / 2]
