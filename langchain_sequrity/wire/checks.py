"""Checks of request bodies with pydantic, for all formats of the local server.

Bodies are untrusted, and the checks are strict: a client that passes here follows the protocol. A
wrong shape is 422 with the location of each problem, in FastAPI's form. A correct shape with
impossible content is 400.

Each format has a table for its body, where a mapping is an object with these fields. Unknown fields
are allowed, and null means absent.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Annotated, Any, Literal, NoReturn, Optional, Union, get_args

import orjson
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    InstanceOf,
    PlainValidator,
    Tag,
    TypeAdapter,
    ValidationError,
)
from pydantic_core import ErrorDetails
from typing_extensions import TypedDict  # pydantic takes no other before Python 3.12

from langchain_sequrity.errors import InvalidRequest
from langchain_sequrity.validation import describe_value, error_sentence, validation_error
from langchain_sequrity.wire.exchange import excerpt

# A type for pydantic, a mapping for an object, or one of these that is built on first use.
Form = Any
Loc = tuple[str | int, ...]

# Pydantic puts the names of a union's branches into locations; this prefix marks them.
_BRANCH = "\0"
# Types of errors: for a value that is 400, and for a field that selects a branch.
_IMPOSSIBLE = "impossible"
_UNKNOWN = "unknown_"
_EXCERPT = 200
_MOST_PROBLEMS = 10
# Messages in JSON's terms; pydantic's own use Python's terms.
_WORDS = {
    "dict_type": "Input should be an object",
    "is_instance_of": "Input should be an object",
    "list_type": "Input should be an array",
    "too_short": "Input should have at least one item",
}
_CHOICES = (None, "auto", "none", "required")
_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}\Z")
# Possessive quantifiers, so that hostile white space takes linear time.
_DATA_URI = re.compile(r"data:([\w.+-]++/[\w.+-]++);base64,[A-Za-z0-9+/\s]*+={0,2}\s*+\Z")
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]++={0,2}\s*+\Z")


# Refusals


def refuse_value(loc: Loc, expected: str, got: Any) -> NoReturn:
    """Refuse an unexpected value, with status 422."""
    _unprocessable([(loc, f"Input should be {expected}; got {_excerpt_of(got)}.", "value_error")])


def refuse_request(detail: str) -> NoReturn:
    """Refuse a request with contradictory or impossible content, with status 400."""
    raise InvalidRequest(detail, status=400, body={"detail": detail})


def _path(loc: Loc) -> str:
    """A location as text, such as `messages.0.content`."""
    return ".".join(map(str, loc)) or "body"


def _refuse(errors: Iterable[ErrorDetails]) -> NoReturn:
    errors = [_located(error) for error in errors]
    wrong = [error for error in errors if error["type"] != _IMPOSSIBLE]
    if not wrong:
        refuse_request(f"{_path(errors[0]['loc'])}: {error_sentence(errors[0])}")
    _unprocessable([(error["loc"], _sentence(error), error["type"]) for error in wrong])


def _located(error: ErrorDetails) -> ErrorDetails:
    """Correct the location: without branches, and with the field that selects the branch."""
    loc = tuple(key for key in error["loc"] if not str(key).startswith(_BRANCH))
    if not error["type"].startswith(_UNKNOWN):
        return {**error, "loc": loc}
    if not isinstance(error["input"], dict):
        return {**error, "loc": loc, "type": "dict_type"}
    key = error["type"].removeprefix(_UNKNOWN)
    return {**error, "loc": (*loc, key), "input": error["input"].get(key)}


def _unprocessable(problems: list[tuple[Loc, str, str]]) -> NoReturn:
    problems = problems[:_MOST_PROBLEMS]
    detail = [{"loc": ["body", *loc], "msg": text, "type": code} for loc, text, code in problems]
    msg = " ".join(f"{_path(loc)}: {text}" for loc, text, _ in problems)
    raise InvalidRequest(msg, status=422, body={"detail": detail})


def _sentence(error: ErrorDetails) -> str:
    text = _WORDS.get(error["type"], "")
    if error["type"] == "literal_error":
        text = error["msg"].replace("'", "`")
    # If the type is wrong, the value does not help, and may be long or private.
    is_of_type = error["type"].startswith(("value", "literal", _UNKNOWN))
    return error_sentence(error, text, show=_excerpt_of if is_of_type else describe_value)


def _excerpt_of(value: Any) -> str:
    return repr(excerpt(value, _EXCERPT)) if isinstance(value, str) else describe_value(value)


# Forms


class Body:
    """The form of a body. Pydantic builds it for the first body, since clients never need it.

    Args:
        fields: The fields of the object.
    """

    def __init__(self, fields: Mapping[str, Form]) -> None:
        self._fields = fields

    def check(self, body: Any) -> dict[str, Any]:
        """Check a body.

        Args:
            body: The parsed JSON.

        Returns:
            The same body, not a copy.

        Raises:
            InvalidRequest: With `status` 422 or 400 and `body={"detail": …}`.
        """
        try:
            self._validate(body, strict=True)
        except ValidationError as error:
            errors = error.errors(include_url=False)
        else:
            return body  # type: ignore[no-any-return]
        _refuse(errors)

    @cached_property
    def _validate(self) -> Callable[..., Any]:
        return TypeAdapter(_build_type(self._fields)).validator.validate_python

    def json_schema(self, ref_template: str) -> dict[str, Any]:
        """The JSON Schema of the form, without the checks that are code.

        Args:
            ref_template: The form of references, with `{model}` for the name of a definition.
        """
        adapter: TypeAdapter[Any] = TypeAdapter(_build_type(self._fields))
        text = orjson.dumps(_with_required(adapter.json_schema(ref_template=ref_template)))
        # Pydantic names a definition by its module too.
        prefix = f"{__name__.replace('.', '__')}__".encode()
        schema: dict[str, Any] = orjson.loads(text.replace(prefix, b""))
        return schema


def _with_required(schema: Any) -> Any:
    """A schema in which the fields are required that `_required` made, without titles."""
    if isinstance(schema, list):
        return [*map(_with_required, schema)]
    if not isinstance(schema, dict):
        return schema
    written = {key: _with_required(value) for key, value in schema.items()}
    if isinstance(properties := written.get("properties"), dict):
        required = [name for name, form in properties.items() if "default" in form]
        for form in properties.values():
            form.pop("default", None)
            form.pop("title", None)
        # The schema of a form that is code is empty; null may be one of its values.
        required = [name for name in required if properties[name]]
        written |= {"required": required} if required else {}
    if written.get("title") == _OBJECT:
        del written["title"]
    return written


_OBJECT = "Object"


class _LazyType:
    """A type that is built for the first body; building all of them would slow down the import."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make

    @cached_property
    def type(self) -> Any:
        return self._make()


def _build_type(form: Form) -> Any:
    if isinstance(form, _LazyType):
        return form.type
    if not isinstance(form, Mapping):
        return form
    fields = {key: _required(_build_type(field_form)) for key, field_form in form.items()}
    return TypedDict(_OBJECT, fields, total=False)  # type: ignore[operator] # made of a table


def _required(form: Any) -> Any:
    if type(None) in get_args(form):
        return form
    # An absent value is validated as null, so that the error describes the expected value.
    return Annotated[form, Field(default=None, validate_default=True)]


def optional(form: Form) -> Form:
    """This form, null, or absent."""
    return _LazyType(lambda: Optional[_build_type(form)])  # noqa: UP045 - a form may be more than a class


def array(form: Form, *, least: int = 0) -> Form:
    """An array of this form. It reports its first problem only: a body can have millions."""
    limits = Field(fail_fast=True, min_length=least)
    return _LazyType(lambda: Annotated[list[_build_type(form)], limits])  # type: ignore[misc] # as above


def with_check(
    form: Form, test: Callable[[Any], Any], expected: str, *, possible: bool = True
) -> Form:
    """A form with an additional check.

    Args:
        form: The form.
        test: Whether a value passes.
        expected: The expectation after "should", such as `be base64`.
        possible: Whether a failure is 422 instead of 400.
    """

    def check(value: Any) -> Any:
        if test(value):
            return value
        error_type = "value_error" if possible else _IMPOSSIBLE
        msg = "Input should {expected}"
        raise validation_error(msg, kind=error_type, is_complete=not possible, expected=expected)

    return _LazyType(lambda: Annotated[_build_type(form), AfterValidator(check)])


def text_or(form: Form, items: str) -> Form:
    """A string or this array; `items` names the array's items in errors."""
    text, array = f"{_BRANCH}text", f"{_BRANCH}array"

    def branch(value: Any) -> str | None:
        if isinstance(value, str):
            return text
        return array if isinstance(value, list) else None

    expected = f"a string or an array of {items}"
    return _union({text: str, array: form}, branch, "content_type", expected)


class _TagInSchema:
    """Adds the tag to the JSON Schema of a branch, which the form of the branch does not have."""

    def __init__(self, key: str, tag: str) -> None:
        self._key = key
        self._tag = tag

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        """The schema of the branch, together with that of its tag."""
        tag = {"properties": {self._key: {"const": self._tag}}, "required": [self._key]}
        return {"allOf": [handler(schema), tag]}


def _with_tag_in_schema(form: Form, key: str, tag: str) -> Form:
    return _LazyType(lambda: Annotated[_build_type(form), _TagInSchema(key, tag)])


def tagged_union(
    key: str, forms: Mapping[str, Form], *, tag_of: Callable[[Any], Any] | None = None
) -> Form:
    """An object whose type is in one of its fields, the tag.

    Args:
        key: The field.
        forms: The form of each tag; `*` in a tag matches any text.
        tag_of: Reads the tag of an object; default: the value of the field.
    """
    branches = {tag: f"{_BRANCH}{tag}" for tag in forms}
    patterns = [tag for tag in forms if "*" in tag]

    def branch(value: Any) -> str | None:
        if not isinstance(value, dict):
            return None
        tag = tag_of(value) if tag_of else value.get(key)
        if not isinstance(tag, str):
            return None
        if tag in branches or not patterns:
            return branches.get(tag)
        return next((branches[pattern] for pattern in patterns if fnmatchcase(tag, pattern)), None)

    tagged = {
        branches[tag]: form if tag_of or tag in patterns else _with_tag_in_schema(form, key, tag)
        for tag, form in forms.items()
    }
    tags = ", ".join(f"`{tag}`" for tag in forms)
    return _union(tagged, branch, f"{_UNKNOWN}{key}", f"one of {tags}")


def _union(
    forms: Mapping[str, Form], branch: Callable[[Any], str | None], error_type: str, expected: str
) -> Form:
    def make() -> Any:
        tagged = [Annotated[_build_type(form), Tag(name)] for name, form in forms.items()]
        if len(tagged) == 1:  # pydantic 2.12 needs a union of two types; nothing has this tag
            tagged.append(Annotated[None, Tag("")])
        text = f"Input should be {expected}"
        error = Discriminator(branch, custom_error_type=error_type, custom_error_message=text)
        return Annotated[Union[tuple(tagged)], error]  # noqa: UP007 - made of a table

    return _LazyType(make)


# Kinds of values


def _json_schema(value: Any) -> Any:
    if isinstance(value, dict):
        return value
    msg = "Input should be a JSON Schema object"
    raise validation_error(msg, kind="schema_type")


def _is_data_uri(url: str, type_prefix: str = "") -> bool:
    match = _DATA_URI.match(url)
    return match is not None and match[1].startswith(type_prefix)


def _is_web_url(url: str) -> bool:
    return url.startswith(("https://", "http://"))


def _is_image(url: str) -> bool:
    return _is_web_url(url) or _is_data_uri(url, "image/")


OBJECT = InstanceOf[dict[str, Any]]  # its fields are not checked
JSON_SCHEMA = Annotated[Any, PlainValidator(_json_schema)]
TOOL_NAME = with_check(str, _TOOL_NAME.match, "be 1 to 64 letters, digits, `_` or `-`")
BASE64 = with_check(str, _BASE64.match, "be base64", possible=False)
WEB_URL = with_check(str, _is_web_url, "be an http(s) URL", possible=False)
DATA_URI = with_check(str, _is_data_uri, "be a base64 data URI", possible=False)
IMAGE_URL = with_check(
    str, _is_image, "be an http(s) URL, or a base64 data URI of an image type", possible=False
)
AUDIO = {"format": Literal["wav", "mp3"], "data": BASE64}


def between(low: float, high: float, number_type: type = float) -> Form:
    """A number between these bounds, inclusive."""
    return Annotated[number_type, Field(ge=low, le=high)]


def at_least(low: int) -> Form:
    """An integer of at least this value."""
    return Annotated[int, Field(ge=low)]


# Fields of chat/completions and Responses.
OPENAI_FIELDS: Mapping[str, Form] = {
    "stop": optional(text_or(array(str), "strings")),
    "stream": optional(bool),
    "stream_options": optional(OBJECT),
    "parallel_tool_calls": optional(bool),
    "temperature": optional(between(0, 2)),
    "top_p": optional(between(0, 1)),
    "top_logprobs": optional(between(0, 20, int)),
}


def with_schema(schema: Form, fields: Mapping[str, Form]) -> Form:
    """An object with these fields and a `schema`."""
    form = {**fields, "schema": schema}
    return _LazyType(lambda: Annotated[_build_type(form), BeforeValidator(plain_schema)])


def plain_schema(value: Any) -> Any:
    """Rename `schema_` to `schema`; the vendor's SDK sends the former."""
    if not isinstance(value, dict) or "schema_" not in value:
        return value
    return {"schema": value["schema_"]} | {key: value[key] for key in value if key != "schema_"}


def with_one_of(form: Form, *keys: str) -> Form:
    """An object that has a value under one of these keys."""
    expected = "have " + " or ".join(f"`{key}`" for key in keys)
    return with_check(form, lambda value: any(value.get(key) is not None for key in keys), expected)


# Fields of several formats


def distinct_tools(tools: Collection[Mapping[str, Any]]) -> None:
    """Refuse function tools of the same name, in the neutral form."""
    for name, count in Counter(tool["function"]["name"] for tool in tools).items():
        if count > 1:
            refuse_request(f"`tools` has two tools named `{name}`. Names must differ.")


def chosen_tool(name: str, tools: Collection[Mapping[str, Any]]) -> dict[str, str]:
    """The choice of one tool in neutral form; the tool must exist."""
    if name not in {tool["function"]["name"] for tool in tools}:
        refuse_request(f"`tool_choice` names the tool `{name}`, which is not in `tools`.")
    return {"name": name}


def tool_choice_form(name_in: Callable[[Any], Any], written: str) -> Form:
    """The form of `tool_choice`: a word, or one tool.

    Args:
        name_in: Reads the name of the one tool.
        written: How the format writes one tool, for errors.
    """
    return with_check(
        Any,
        lambda choice: choice in _CHOICES or isinstance(name_in(choice), str),
        f"be `auto`, `none`, `required` or {written}",
    )


def neutral_choice(
    choice: Any, name: Any, tools: Collection[Mapping[str, Any]], others: Collection[Any] = ()
) -> str | dict[str, str] | None:
    """A `tool_choice` in neutral form; `name` is the name of the one tool, if it is one."""
    if isinstance(choice, dict):
        return chosen_tool(name, tools)
    if choice == "required" and not (tools or others):
        refuse_request("`tool_choice` is `required`, but `tools` is empty.")
    return choice  # type: ignore[no-any-return]


def status_of(result: Mapping[str, Any]) -> Literal["success", "error"]:
    """The status of a tool result, from the field of Messages (`docs/behaviour.md`, P7)."""
    return "error" if result.get("is_error") else "success"


def stop_list(stop: str | list[str] | None) -> list[str]:
    """Stop sequences; a single one may come without a list."""
    return [stop] if isinstance(stop, str) else stop or []
