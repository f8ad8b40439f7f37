"""A value for a JSON Schema, made from what a prompt offers.

Schemas come from clients and may be anything: keywords of wrong types are passed over, references
may be circular, and depth and size are limited.
"""

import time
from collections.abc import Mapping
from typing import Any

from langchain_sequrity.display import plain
from langchain_sequrity.local.clues import Clues, Fits, words
from langchain_sequrity.local.refusals import refuse
from langchain_sequrity.patterns import Pattern, PatternError, PatternTooLarge

_DEEPEST = 16
_MOST_VALUES = 2_000
_MOST_ITEMS = 20
_GREATEST = 1e15  # beyond, floats skip whole numbers
_MOST_CHARACTERS = 200
_MOST_LENGTH = 2_000
_PATTERN_SECONDS = 0.05
_SHOWN = 80
_FORMAT_EXAMPLES = {
    "date": "2025-01-01",
    "date-time": "2025-01-01T00:00:00Z",
    "time": "00:00:00Z",
    "email": "someone@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "ipv4": "127.0.0.1",
    "ipv6": "::1",
    "hostname": "localhost",
    "duration": "PT1H",
}
# Properties with such names take what the user said as a whole.
_WHOLE_PROMPT = {"query", "question", "prompt", "input", "request", "task", "message", "text"}

_AROUND_WORDS = ".,;:!?()[]{}\"'`"

Schema = Mapping[str, Any]


def fill(schema: Any, clues: Clues) -> Any:
    """Make a value that fits a JSON Schema.

    Args:
        schema: The schema, with local references (`#/$defs/…`) at most.
        clues: What to make it from; clues are used up.

    Returns:
        The value: plain JSON.

    Raises:
        StatusError: 400 for a `pattern` that is too large to be compiled.

    Example:
        ```python
        from langchain_sequrity.local.clues import Clues
        from langchain_sequrity.local.schema_filling import fill

        schema = {"type": "object", "properties": {"city": {"type": "string"}}}
        assert fill(schema, Clues("The weather in Rome, please")) == {"city": "Rome"}
        ```
    """
    return _Filler(_mapping(schema), clues).value(_mapping(schema), "", ("#",))


def _mapping(value: Any) -> Schema:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _bound(schema: Schema, key: str, default: float) -> float:
    value = schema.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return default
    return value if abs(value) < _GREATEST else default


def _size(schema: Schema, key: str, default: int) -> int:
    return int(min(max(_bound(schema, key, default), 0), _MOST_LENGTH))


class _Filler:
    """Fills one schema. `path` is the chain of references that are being followed."""

    def __init__(self, root: Schema, clues: Clues) -> None:
        self._root = root
        self._clues = clues
        self._left = _MOST_VALUES
        self._depth = 0
        self._pattern_deadline = time.monotonic() + _PATTERN_SECONDS

    def value(self, schema: Any, name: str, path: tuple[str, ...]) -> Any:
        self._left -= 1
        if self._left < 0 or self._depth > _DEEPEST:
            return None
        self._depth += 1
        try:
            return self._value(*self._resolved(_mapping(schema), path), name)
        finally:
            self._depth -= 1

    def _value(self, schema: Schema, path: tuple[str, ...], name: str) -> Any:
        if "const" in schema:
            return schema["const"]
        if options := _list(schema.get("enum")):
            return self._enum(schema, options, name)
        if branches := _list(schema.get("anyOf")) or _list(schema.get("oneOf")):
            return self._branch(schema, branches, name, path)
        kind = self._kind(schema, name)
        if kind == "object":
            return self._object(schema, path)
        if kind == "array":
            return self._array(schema, name, path)
        return self._scalar(schema, kind, name)

    def _scalar(self, schema: Schema, kind: str, name: str) -> Any:
        if kind == "null":
            return None
        if kind == "boolean":
            return self._boolean(schema, name)
        if kind in ("integer", "number"):
            return self._number(schema, name, whole=kind == "integer")
        return self._text(schema, name)

    # Structure

    def _resolved(self, schema: Schema, path: tuple[str, ...]) -> tuple[Schema, tuple[str, ...]]:
        """Follow references and merge `allOf`."""
        for _ in range(_DEEPEST):
            reference = schema.get("$ref")
            if not isinstance(reference, str):
                break
            rest = {key: value for key, value in schema.items() if key != "$ref"}
            schema, path = {**self._target(reference), **rest}, (*path, reference)
        for part in _list(schema.get("allOf"))[:_MOST_ITEMS]:
            inner = _mapping(part)
            if isinstance(reference := inner.get("$ref"), str):
                inner, path = self._target(reference), (*path, reference)
            schema = _merged(schema, inner)
        return schema, path

    def _target(self, reference: str) -> Schema:
        found: Any = self._root
        for step in reference.removeprefix("#").split("/")[1:]:
            found = _mapping(found).get(step.replace("~1", "/").replace("~0", "~"))
        return _mapping(found)

    def _kind(self, schema: Schema, name: str) -> str:
        kind = schema.get("type")
        if isinstance(kind, list):
            kinds = [one for one in kind if isinstance(one, str)]
            filled = [one for one in kinds if one != "null"]
            nullable = len(filled) < len(kinds)
            if not filled or (nullable and self._better_null(filled[0], name)):
                return "null"
            return filled[0]
        if isinstance(kind, str):
            return kind
        if "properties" in schema:
            return "object"
        return "array" if "items" in schema else "string"

    def _better_null(self, kind: Any, name: str) -> bool:
        numeric = kind in ("integer", "number")
        return self._clues.denies(name) or (numeric and not self._clues.numbers)

    def _circular(self, schema: Any, path: tuple[str, ...]) -> bool:
        schema = _mapping(schema)
        inner = [schema, schema.get("items"), *_list(schema.get("anyOf"))]
        references = [_mapping(one).get("$ref") for one in inner]
        references += [
            _mapping(_mapping(one).get("items")).get("$ref") for one in _list(schema.get("anyOf"))
        ]
        return any(reference in path for reference in references if reference is not None)

    def _branch(self, schema: Schema, branches: list[Any], name: str, path: tuple[str, ...]) -> Any:
        resolved = [self._resolved(_mapping(one), path) for one in branches[:_MOST_ITEMS]]
        filled = [(one, way) for one, way in resolved if one.get("type") != "null"]
        nullable = len(filled) < len(resolved)
        cycle = any(self._circular(one, path) for one in branches)
        if not filled or (
            nullable and (cycle or self._better_null(filled[0][0].get("type"), name))
        ):
            return None
        best, way = max(filled, key=lambda pair: self._tagged(pair[0]))
        outer = {key: value for key, value in schema.items() if key not in ("anyOf", "oneOf")}
        return self.value(_merged(best, outer), name, way)

    def _tagged(self, schema: Schema) -> bool:
        """Whether the prompt names the branch, by a constant of it or by its title."""
        parts = [schema, *_mapping(schema.get("properties")).values()]
        tags = [_mapping(part).get("const") for part in parts]
        tags += [tag for part in parts for tag in _list(_mapping(part).get("enum"))]
        tags.append(schema.get("title"))
        return any(isinstance(tag, str) and self._clues.contains(tag) for tag in tags)

    def _object(self, schema: Schema, path: tuple[str, ...]) -> dict[str, Any]:
        required = _list(schema.get("required"))
        properties = _mapping(schema.get("properties"))
        return {
            name: self.value(inner, name, path)
            for name, inner in list(properties.items())[:_MOST_VALUES]
            if name in required or self._wanted(name, inner, path)
        }

    def _wanted(self, name: str, schema: Any, path: tuple[str, ...]) -> bool:
        """An optional property is filled if the prompt has it, or if nothing stands in for it."""
        if self._circular(schema, path) or self._clues.denies(name):
            return False
        if "default" not in _mapping(schema):
            return True
        options = _list(self._resolved(_mapping(schema), path)[0].get("enum"))
        named = any(isinstance(one, str) and self._clues.contains(one) for one in options)
        return named or self._clues.mentions(name)

    def _array(self, schema: Schema, name: str, path: tuple[str, ...]) -> list[Any]:
        least = min(_size(schema, "minItems", 0), _MOST_ITEMS)
        most = min(_size(schema, "maxItems", _MOST_ITEMS), _MOST_ITEMS)
        if prefix := _list(schema.get("prefixItems")):
            return [self.value(item, name, path) for item in prefix[:most]]
        if self._circular(schema, path):
            return []
        item, way = self._resolved(_mapping(schema.get("items")), path)
        if options := _list(item.get("enum")):
            return self._enums(options, least, most)
        wanted = min(max(self._offered(item), least, 1), most)
        return [self.value(item, name, way) for _ in range(wanted)]

    def _offered(self, item: Schema) -> int:
        """How many items the prompt has values for."""
        kind = item.get("type")
        if kind in ("integer", "number"):
            return len(self._clues.numbers)
        return len(self._clues.quotes) if kind == "string" else 1

    def _enums(self, options: list[Any], least: int, most: int) -> list[Any]:
        found = [one for one in options if self._clues.contains(_spoken(one))]
        rest = [one for one in options if one not in found]
        return [*found, *rest][: min(max(len(found), least, 1), most)]

    # Values

    def _enum(self, schema: Schema, options: list[Any], name: str) -> Any:
        if None in options and self._clues.denies(name):
            return None
        for option in options:
            if option is not None and self._clues.contains(_spoken(option)):
                return option
        default = schema.get("default", options[0])
        return default if default in options else options[0]

    def _boolean(self, schema: Schema, name: str) -> bool:
        named = self._clues.named(name)
        if named is not None:
            return named.lower() in ("true", "yes", "on", "1")
        if self._clues.denies(name):
            return False
        default = schema.get("default")
        return default if isinstance(default, bool) else self._clues.mentions(name)

    def _number(self, schema: Schema, name: str, *, whole: bool) -> Any:
        fits = _fits(schema, whole=whole)
        if (named := self._clues.named(name)) is not None:
            offered = Clues(named).number(fits)
            if offered is not None:
                if offered in self._clues.numbers:
                    self._clues.numbers.remove(offered)
                return int(offered) if whole else offered
        number = self._clues.number(fits)
        if number is None:
            default = schema.get("default")
            number = default if isinstance(default, int | float) else fits.smallest()
        return int(number) if whole else number

    def _text(self, schema: Schema, name: str) -> str:
        form, pattern = schema.get("format"), schema.get("pattern")
        if isinstance(form, str) and form in _FORMAT_EXAMPLES:
            return self._clues.formatted(form) or _default(schema) or _FORMAT_EXAMPLES[form]
        if isinstance(pattern, str) and (found := self._matching(pattern, name)):
            return found
        text = self._clues.named(name) or self._clues.quote() or _default(schema)
        return _of_length(text or self._worded(name), schema)

    def _worded(self, name: str) -> str:
        prompt = self._clues.prompt[:_MOST_CHARACTERS]
        if name.lower() in _WHOLE_PROMPT and prompt:
            return prompt
        title = " ".join(words(name)) or "text"
        return self._clues.phrase() or (f"{title}: {prompt}" if prompt else title)

    def _matching(self, pattern: str, name: str) -> str | None:
        """A quoted text or a word of the prompt that matches, found within a time limit."""
        if self._pattern_left() <= 0:
            return None
        try:
            compiled = Pattern(pattern)
            spoken = (word.strip(_AROUND_WORDS) for word in self._clues.prompt.split())
            for text in (*self._clues.quotes, *spoken):
                if self._pattern_left() <= 0:
                    return None
                if compiled.finds(text, seconds=self._pattern_left()):
                    return str(text)
        except PatternTooLarge as error:
            shown = plain(name, limit=_SHOWN)
            refuse(400, f"The `pattern` of `{shown}` in a JSON Schema cannot be used: {error}.")
        except (PatternError, TimeoutError):  # other dialects have more than is read here
            return None
        return None

    def _pattern_left(self) -> float:
        return self._pattern_deadline - time.monotonic()


def _merged(schema: Schema, other: Schema) -> Schema:
    properties = {**_mapping(schema.get("properties")), **_mapping(other.get("properties"))}
    required = [*_list(schema.get("required")), *_list(other.get("required"))]
    merged = {**other, **schema}
    merged.pop("allOf", None)
    return {**merged, **({"properties": properties, "required": required} if properties else {})}


def _spoken(option: Any) -> str:
    return option if isinstance(option, str) else str(option)


def _default(schema: Schema) -> str | None:
    default = schema.get("default")
    return default if isinstance(default, str) else None


def _fits(schema: Schema, *, whole: bool) -> Fits:
    infinity = float("inf")
    low, open_low = _bound(schema, "minimum", -infinity), False
    high, open_high = _bound(schema, "maximum", infinity), False
    if (above := _bound(schema, "exclusiveMinimum", -infinity)) >= low:
        low, open_low = above, True
    if (below := _bound(schema, "exclusiveMaximum", infinity)) <= high:
        high, open_high = below, True
    step = max(_bound(schema, "multipleOf", 0), 0)
    return Fits(low, high, whole=whole, step=step, open_low=open_low, open_high=open_high)


def _of_length(text: str, schema: Schema) -> str:
    least = _size(schema, "minLength", 0)
    most = _size(schema, "maxLength", _MOST_LENGTH)
    return text[:most] if len(text) >= least else text.ljust(least, ".")
