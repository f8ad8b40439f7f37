"""Subclasses of `BaseModel` in programs: data with a schema, not Python classes."""

import json
from typing import Any

import pydantic
import pytest

from langchain_sequrity.labels import Labels
from langchain_sequrity.local.interpreter import Labeled, ProgramFinished
from tests.local.interpreter.running import SECRET, failure, finish, value

HEADER = """\
from pydantic import BaseModel, Field, ValidationError
from typing import Any, Dict, List, Literal, Optional, Tuple, Union
from datetime import date
"""
ITEM = """\
class Item(BaseModel):
    "One thing."
    name: str = Field(description="what it is called", min_length=1)
    count: int = Field(default=1, ge=0, le=99)
    kind: Literal["mail", "call"] = "mail"
    tags: list[str] = Field(default_factory=list)
    day: Optional[date] = None
    parent: "Item | None" = None
class Box(Item):
    items: List[Item]
    sizes: Dict[str, Tuple[int, int]] = {}
    state: Literal["open", "shut"] = "open"
    extra: Any = None
"""


def run(source: str, **options: Any) -> Any:
    return value(HEADER + ITEM + source, **options)


def stripped(schema: Any) -> Any:
    """A schema without titles of fields, defaults and descriptions, for a comparison."""
    if isinstance(schema, list):
        return [stripped(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    named = {"properties", "$defs"}
    return {
        key: {name: stripped(one) for name, one in inner.items()}
        if key in named
        else stripped(inner)
        for key, inner in schema.items()
        if not (key == "title" and "properties" not in schema)
        and key not in ("default", "description")
    }


def test_schemas_of_models_match_those_of_pydantic() -> None:
    namespace: dict[str, Any] = {"__name__": "models"}
    exec(HEADER + ITEM, namespace)  # noqa: S102 - the text above
    for name in ("Item", "Box"):
        ours = stripped(run(f"{name}.model_json_schema()"))
        theirs = stripped(namespace[name].model_json_schema())
        assert ours == theirs
    assert issubclass(namespace["Item"], pydantic.BaseModel)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("Item(name='a').count", 1),
        ("Item(name='a', count='7').count", 7),
        ("Item(name='a', kind='call').kind", "call"),
        ("Item(name='a', day='2024-02-29').day.year", 2024),
        ("x = Item(name='a')\nx.tags.append('t')\n[x.tags, Item(name='b').tags]", [["t"], []]),
        ("Item(name='a', unknown=1).model_dump()['name']", "a"),
        ("Item(name='a', parent={'name': 'p'}).parent.name", "p"),
        ("Box(name='b', items=[{'name': 'i'}, Item(name='j')]).items[0].count", 1),
        ("Box(name='b', items=[], sizes={'s': ['1', 2]}).sizes", {"s": [1, 2]}),
        ("isinstance(Box(name='b', items=[]), Item)", True),
        ("Item(name='a') == Item(name='a') != Item(name='b')", True),
        ("x = Item(name='a')\nx.count += 5\nx.count", 6),
        ("Item.model_validate({'name': 'v'}).name", "v"),
        ('Item.model_validate_json(\'{"name": "v"}\').name', "v"),
        ("Item(name='a').model_copy(update={'count': 3}).count", 3),
    ],
)
def test_instances_behave_like_those_of_pydantic(source: str, expected: Any) -> None:
    assert run(source) == expected


def test_an_instance_dumps_to_json() -> None:
    text = run("Item(name='ä', day='2024-01-01', kind='call').model_dump_json()")

    assert json.loads(text) == {
        "name": "ä", "count": 1, "kind": "call", "tags": [], "day": "2024-01-01", "parent": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        ("", "name"),
        ("name=1", "name"),
        ("name=''", "name"),
        ("name='a', count=100", "count"),
        ("name='a', count='x'", "count"),
        ("name='a', count=1.5", "count"),
        ("name='a', kind='fax'", "kind"),
        ("name='a', tags='t'", "tags"),
        ("name='a', tags=map(str, [1])", "tags"),
        ("name='a', tags=['t', 1]", "tags.1"),
        ("name='a', day='tomorrow'", "day"),
        ("name='a', parent={}", "parent"),
    ],
)
def test_a_value_that_does_not_fit_raises_a_validation_error_that_names_the_field(
    arguments: str, place: str
) -> None:
    step = failure(f"{HEADER}{ITEM}Item({arguments})")

    assert (step.kind, step.type) == ("exception", "ValidationError")
    assert step.message.splitlines()[:2] == ["1 validation error for Item", place]
    caught = f"try:\n    Item({arguments})\n    r = 0\nexcept ValidationError:\n    r = 1\nr"
    assert run(caught) == 1


def test_each_field_keeps_its_own_labels() -> None:
    source = f"{HEADER}{ITEM}x = Box(name=s, items=[{{'name': p}}], extra=[s])\n"
    variables = {"s": Labeled("1", SECRET), "p": Labeled("p")}

    def labels(expression: str) -> Labels:
        step = finish(source + expression, variables=variables)
        assert isinstance(step, ProgramFinished)
        return step.value.labels

    assert labels("x.name") == SECRET
    assert labels("x.items[0].name") == Labels()
    assert labels("x.model_dump()['items']") == Labels()
    assert labels("x.model_dump()['name']") == SECRET
    assert labels("x.count") == Labels()
    assert labels("x") == SECRET
    assert labels("Item(name=p, count=s).count") == SECRET


@pytest.mark.parametrize(
    "source",
    [
        "class A(int):\n    x: int",
        "class A(ValueError):\n    x: int",
        "class A(BaseModel):\n    x: len",
        "class A(BaseModel):\n    x: int = Field(max_length=3)",
        "class A(BaseModel):\n    x: Literal",
        "class A(BaseModel):\n    x: list = Field(default_factory=lambda: [])",
        "class A(BaseModel):\n    x: dict[int]",
        "Item('positional')",
        "Item(name='a').model_dump(by_alias=True)",
        "len(Item(name='a'))",
    ],
)
def test_an_unsupported_use_of_a_class_raises_a_type_error(source: str) -> None:
    step = failure(HEADER + ITEM + source)

    assert (step.kind, step.type) == ("exception", "TypeError")


@pytest.mark.parametrize(("text", "fits"), [("A-17", True), ("xA-17x", True), ("a-17", False)])
def test_the_pattern_of_a_field_is_searched_in_its_value(text: str, fits: bool) -> None:
    source = (
        "from pydantic import BaseModel, Field, ValidationError\n"
        "class Code(BaseModel):\n    code: str = Field(pattern=r'[A-Z]-\\d{2,64}', max_length=9)\n"
        f"try:\n    r = Code(code={text!r}).code\nexcept ValidationError as error:\n    r = str(error)\nr"
    )
    found = value(source)
    assert (found == text) is fits
    assert fits or "String should match pattern '[A-Z]-\\d{2,64}'" in found


HALF_MADE = """
try:
    class Made(BaseModel):
        first: int
        again: "list[Made]" = []
        second: int = 1 // 0
except ZeroDivisionError:
    pass
"""


@pytest.mark.parametrize(
    ("before", "within"),
    [("", False), ("Made = 7\n", False), ("", True), ("Made = 7\n", True)],
    ids=["nothing", "a value", "nothing, in a function", "a value, in a function"],
)
def test_a_class_statement_that_raises_leaves_its_name_unchanged(
    before: str, *, within: bool
) -> None:
    body = f"{before}{HALF_MADE}\ntry:\n    seen = Made\nexcept NameError:\n    seen = None\n"
    if within:
        lines = "".join(f"    {line}\n" for line in body.splitlines())
        body = f"def f():\n{lines}    return seen\nseen = f()\n"
    assert run(f"{body}seen") == (7 if before else None)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("{'x': 5}", ("A", 5)),
        ("{'x': '5'}", ("B", "5")),
        ("{'x': [1]}", ("C", [1])),
        ("{'x': [1.0]}", ("D", [1.0])),
        ("{'x': ['1']}", ("C", [1])),
        ("{'x': {'k': '1'}}", ("F", {"k": "1"})),
    ],
)
def test_a_union_prefers_a_type_that_converts_nothing_like_pydantic(
    given: str, expected: tuple[str, Any]
) -> None:
    kinds = ("int", "str | None", "list[int]", "list[float]", "dict[str, int]", "dict[str, str]")
    source = "from pydantic import BaseModel\n"
    for name, kind in zip("ABCDEF", kinds, strict=True):
        source += f"class {name}(BaseModel):\n    x: {kind}\n"
    source += (
        f"class Any_(BaseModel):\n    one: A | B | C | D | E | F\nfound = Any_(one={given}).one\n"
    )
    theirs: dict[str, Any] = {}
    exec(source, theirs)  # noqa: S102 - the same program in Python

    assert (type(theirs["found"]).__name__, theirs["found"].x) == expected
    assert tuple(value(f"{source}(found.__class__.__name__, found.x)")) == expected


def test_a_default_may_be_an_instance_of_the_class_that_is_being_defined() -> None:
    source = (
        "class A(BaseModel):\n    x: int = 1\n    y: 'Optional[A]' = A(x=2)\n    z: str = 'z'\n"
    )

    assert run(f"{source}a = A(z='q')\n[a.x, a.y.x, a.z]") == [1, 2, "q"]


def test_a_model_that_was_used_before_a_part_of_it_was_complete_is_read_anew() -> None:
    source = """\
kept = []
def use(part):
    class Whole(BaseModel):
        part: part
    kept.append(Whole)
    kept.append(Whole(part={}))
    return 1
class Part(BaseModel):
    x: int = use(Part)
    y: str
"""

    assert run(f"{source}kept[0](part={{'y': 'a'}}).part.y") == "a"
    assert failure(f"{HEADER}{source}kept[0](part={{}})").type == "ValidationError"
