"""Every operation of the interpreter as a template, for random programs.

A template has holes. `<int>` stands for any expression of that kind, `<list!>` for a variable with a
list, because the operation changes it. The text of a template shows which operations it covers. A
test compares that with the interpreter's tables, so it reports an operation without a template.
"""

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from langchain_sequrity.local.interpreter.builtins import BUILTINS
from langchain_sequrity.local.interpreter.calls import ATTRIBUTES, METHODS, MISSING
from langchain_sequrity.local.interpreter.modules import MODULES
from langchain_sequrity.local.interpreter.values import (
    ErrorType,
    Marker,
    TypeValue,
    type_name,
)

HOLE = re.compile(r"<([a-z0-9]+)(!?)>")


@dataclass(frozen=True, slots=True)
class Template:
    """One operation.

    Attributes:
        gives: Kind of its value; empty for a statement.
        text: Its text, with holes.
        sides: The number of runs, of two, in which what it changed must carry the tag. It is 0 if
            only one run calls a function that changes something, because that is a flow through
            statements.
    """

    gives: str
    text: str
    sides: int = 2

    @property
    def changes(self) -> bool:
        """Whether it changes a variable."""
        return not self.gives or "!>" in self.text or ":=" in self.text


def _template(line: str, *, is_statement: bool) -> Template:
    """Read a line of a table. Each `~` before it takes one from `sides`."""
    text = line.lstrip("~")
    sides = 2 - (len(line) - len(text))
    if is_statement:
        return Template("", text, sides)
    kind, _, text = text.partition(": ")
    return Template(kind, text, sides)


def _templates(table: str) -> tuple[Template, ...]:
    lines = filter(None, map(str.strip, table.splitlines()))
    return tuple(_template(line, is_statement=False) for line in lines)


# -- secrets and constants

# Name, kind and possible values. The name is also the tag.
SECRETS: dict[str, tuple[str, tuple[object, ...]]] = {
    "text": ("str", ("ab", "b", "", "abc", "ba", "AB ")),
    "num": ("int", (2, 3, 0, -1, 1, 5)),
    "flag": ("bool", (True, False)),
    "real": ("float", (1.5, 2.0, 0.0, -3.25)),
    "nums": ("list", ([2, 1, 3], [3, 1, 2], [2, 1], [], [2, 1, 3, 4], [2, 2])),
    "words": ("list", (["b", "a"], ["a"], ["a", "b"], [], ["b", 1])),
    "table": (
        "dict",
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": 1}, {}, {"a": 1, "c": 2}, {"a": 9, "b": 2}),
    ),
    "thing": ("any", (1, True, 1.0, "1", None, [1], {"a": 1}, [], "")),
    "key": ("key", ("a", "b", "z", "count", "name")),
    "day": ("isodate", ("2024-01-02", "2024-02-01", "nope", "2023-12-31")),
    "doc": ("json", ('{"a": 1}', '{"b": 1}', "[1]", "1", '{"a": "1"}', "x", '{"name": "n"}')),
    "pat": ("regex", ("a", "(b)|a", "z", "(?P<a>a)(b)?", "[", "")),
    "spec": ("spec", (">4", "<3", "x", "", "^5")),
    "digits": ("numtext", ("12", "7", "x", "012", "")),
    "form": ("brace", ("{}{}", "{1}", "{a}", "x", "{0}-{0}")),
    "pairs": ("pairs", ([["a", 1], ["b", 2]], [["a", 2]], [], [["b", 2], ["a", 1]], [["a"]])),
    "nested": ("nestedlist", ([[1, 2], [3]], [[1], [2, 3]], [[3], [1, 2]], [[]], [])),
}
# Constants of each kind.
LITERALS: dict[str, tuple[str, ...]] = {
    "int": ("0", "1", "2", "3", "-1", "5"),
    "float": ("0.5", "1.0", "2.5", "-0.25"),
    "bool": ("True", "False"),
    "str": ("'a'", "'ab'", "''", "'b c'", "'1'", "'ba'"),
    "key": ("'a'", "'b'", "'z'", "1"),
    "isodate": ("'2024-01-02'", "'2024-05-06'"),
    "json": ("'[1, 2]'", "'{\"a\": 1}'", "'3'"),
    "regex": ("'a'", "'(a)(b)?'", "'[ab]+'", "'(?P<a>b)'"),
    "spec": ("'>3'", "''", "'<4'"),
    "numtext": ("'12'", "'7'"),
    "brace": ("'{}'", "'{}-{}'", "'{a}'"),
    "percent": ("'%s'", "'%s-%s'", "'%r'", "'%(a)s'", "'%5s'"),
    "bytes": ("b'ab'", "b''", "b'b a'"),
    "none": ("None",),
    "list": ("[1, 2, 3]", "[]", "[3, 1]", "['b', 'a']", "[0]", "[[1], [2]]", "[1, 1.0, True]"),
    "nestedlist": ("[[1, 2], [3]]", "[[1]]", "[['a'], [2, 3]]"),
    "pairs": ("[('a', 1), ('b', 2)]", "[]", "[['z', 0]]"),
    "tuple": ("(1, 2)", "()", "('a',)", "(0, 'b', None)"),
    "dict": ("{'a': 1, 'b': 2}", "{}", "{'z': 0}", "{1: 'x', 'a': 2}", "{'b': 1, 'a': 2}"),
    "set": ("{1, 2}", "set()", "{'a', 'b'}", "{0}"),
    "range": ("range(4)", "range(0)", "range(5, 0, -2)"),
    "iter": ("iter(range(9))", "iter([1, 2, 3])", "iter('abcd')", "(q for q in range(6))"),
    "date": ("date(2024, 1, 2)", "date(2024, 5, 6)"),
    "datetime": ("datetime(2024, 1, 2, 3, 4)", "datetime(2024, 1, 2, tzinfo=UTC)"),
    "time": ("time(12, 30)", "time(1, 2, 3)"),
    "timedelta": ("timedelta(days=1)", "timedelta(seconds=90)"),
    "timezone": ("UTC", "timezone(timedelta(hours=1))"),
    "record": ("Item(name='a')", "Item(name='b', count=2, tags=['t'])"),
    "box": ("Box()", "Box(x='a')", "Box(x=[1])"),
    "error": ("ValueError('v')", "KeyError('k')", "OwnError(1, 2)", "OwnError()"),
    "type": ("int", "str", "list", "Item", "KeyError", "(int, str)", "int | None"),
    "pattern": ("re.compile('a')", "re.compile('(a)(b)?')"),
    "match": ("re.search('(?P<a>.)(b)?', 'xab')",),
    "fn": ("(lambda q: q)", "str", "bool", "(lambda q: str(q))", "(lambda q: 0)", "repr"),
    "fn0": ("(lambda: 0)", "list", "int", "dict"),
    "fn2": ("(lambda q, h: (q, h))", "(lambda q, h: h)", "(lambda q, h: [q, h])"),
    "pred": ("q", "q != 1", "True"),
    "slice": ("1:", ":2", "::2", "::-1", "0:1"),
    "counter": ("collections.Counter('aab')", "collections.Counter()"),
    "default": ("collections.defaultdict(list)", "collections.defaultdict(int, {'a': 1})"),
    "small": ("0", "1", "2", "3"),
}
# Kinds of holes that take one of several kinds of values.
KINDS: dict[str, tuple[str, ...]] = {
    "num": ("int", "int", "float", "bool"),
    "sized": ("list", "str", "dict", "set", "tuple", "range", "bytes", "counter"),
    "seq": ("list", "str", "tuple", "range", "list"),
    "iterable": ("list", "list", "str", "dict", "set", "tuple", "range", "iter", "iter"),
    "container": ("list", "dict", "set", "tuple", "str", "range", "counter", "iter"),
    "hashable": ("int", "str", "key", "key", "tuple", "bool", "none", "float"),
    "mapping": ("dict", "dict", "counter", "default"),
    "any": (
        *("int", "int", "str", "str", "list", "dict", "tuple", "bool", "float", "set", "none"),
        *("bytes", "range", "record", "box", "error", "date", "type"),
        *("timedelta", "counter", "default", "datetime", "time"),
    ),
}
# The code that a program needs before it can use a name.
NEEDS: dict[str, str] = {
    **{name: f"import {name}" for name in MODULES if name.isidentifier()},
    "time": "from datetime import time",
    "clock": "import time as clock",
    "date": "from datetime import date",
    "datetime": "from datetime import datetime",
    "timedelta": "from datetime import timedelta",
    "timezone": "from datetime import timezone",
    "UTC": "from datetime import UTC",
    "BaseModel": "from pydantic import BaseModel",
    "Field": "from pydantic import Field",
    "ValidationError": "from pydantic import ValidationError",
    "Literal": "from typing import Literal",
    "Optional": "from typing import Optional",
    "Any": "from typing import Any",
    "OwnError": "class OwnError(Exception):\n    pass",
    "Item": (
        "class Item(BaseModel):\n    name: str\n    count: int = 0\n"
        "    tags: list[str] = Field(default_factory=list)"
    ),
    "Box": (
        "class Box(BaseModel):\n    x: int | str | list[int] | Item | None = None\n"
        "    y: Literal[1, 'a', 'b'] = 1\n    z: Any = 0\n    w: Optional[Item] = None"
    ),
    "Shelf": (
        "class Shelf(BaseModel):\n    boxes: list[Item] = []\n    by: dict[str, int] = {}\n"
        "    pair: tuple[int, str] | None = None\n    kinds: set[int] = set()\n"
        "    when: date | timedelta | None = None\n    low: int = Field(default=0, ge=0)\n"
        "    short: str = Field(default='', max_length=2)"
    ),
}

# -- expressions: the kind of the value, then the text

EXPRESSIONS = _templates(r"""
    int: abs(<num>)
    bool: all(<iterable>)
    bool: all(<pred> for q in <iterable>)
    bool: any(<iterable>)
    bool: any(<pred> for q in <iterable>)
    str: ascii(<any>)
    str: bin(<int>)
    bool: bool(<any>)
    bytes: bytes(<iterable>)
    bytes: bytes(<str>, 'utf-8')
    bytes: bytes(<small>)
    bool: callable(<any>)
    str: chr(97 + abs(<int>))
    dict: dict(<dict>)
    dict: dict(<pairs>)
    dict: dict(a=<any>, **<dict>)
    dict: dict((h, 1) for h in 'ab' if <bool>)
    dict: dict(zip(<iterable>, <iterable>))
    dict: dict(<mapping>, b=<int>)
    tuple: divmod(<num>, <num>)
    iter: enumerate(<iterable>)
    iter: enumerate(<iterable>, <int>)
    iter: enumerate(<iterable>, start=<int>)
    iter: filter(<fn>, <iterable>)
    iter: filter(None, <iterable>)
    iter: filter(lambda q: <pred>, <iterable>)
    float: float(<num>)
    float: float(<numtext>)
    str: format(<any>, <spec>)
    str: format(<num>)
    str: hex(<int>)
    int: int(<num>)
    int: int(<numtext>)
    int: int(<numtext>, <int>)
    bool: isinstance(<any>, <type>)
    bool: isinstance(<any>, type(<any>))
    bool: isinstance(<any>, (<type>, <type>))
    bool: isinstance(1, (list, (int if <bool> else str)))
    bool: isinstance(<box>.x, (Item, list))
    bool: isinstance(<error>, type(<error>))
    iter: iter(<iterable>)
    int: len(<sized>)
    int: len([<any>, <any>])
    list: list(<iterable>)
    list: list(<mapping>)
    iter: map(<fn>, <iterable>)
    iter: map(<fn2>, <iterable>, <iterable>)
    iter: map(lambda q: <any>, <iterable>)
    any: max(<iterable>)
    any: max(<iterable>, key=<fn>)
    any: max(<int>, <num>, <num>)
    any: max(<iterable>, default=<any>)
    any: max(<tuple>, <tuple>, key=<fn>)
    any: min(<iterable>)
    any: min(<iterable>, key=<fn>, default=<any>)
    any: min(<num>, <num>)
    any: min([1, True, <num>])
    any: next(iter(<iterable>), <any>)
    any: next(<iter>)
    any: next((q for q in <iterable> if <pred>), None)
    str: oct(<int>)
    int: ord(<str>)
    int: pow(<num>, <small>)
    int: pow(<int>, <int>, <int>)
    range: range(<int>)
    range: range(<int>, <int>)
    range: range(<int>, <int>, <int>)
    str: repr(<any>)
    iter: reversed(<seq>)
    iter: reversed(<dict>)
    float: round(<num>)
    float: round(<num>, <int>)
    set: set(<iterable>)
    list: sorted(<iterable>)
    list: sorted(<iterable>, key=<fn>)
    list: sorted(<iterable>, key=<fn>, reverse=<bool>)
    list: sorted([(1, 'b'), (0, 'a'), (1, 'a')], key=lambda q: <any>)
    str: str(<any>)
    str: str(<bytes>, 'ascii')
    num: sum(<iterable>)
    num: sum(<iterable>, <num>)
    num: sum(1 for q in <iterable> if <pred>)
    list: sum(<list>, [])
    tuple: tuple(<iterable>)
    type: type(<any>)
    str: type(<any>).__name__
    str: <any>.__class__.__name__
    bool: type(<any>) is type(<any>)
    bool: type(<any>) == type(<any>)
    bool: type(<any>) in (int, str, bool)
    iter: zip(<iterable>, <iterable>)
    iter: zip(<iterable>, <iterable>, strict=<bool>)
    iter: zip(<iterable>, range(9), <iterable>)
    error: ValueError(<any>)
    error: OwnError(<any>, <any>)
    error: (KeyError if <bool> else ValueError)(<any>)
    error: ToolError(<str>)
    error: type(<error>)(<str>)
    error: UnicodeDecodeError('utf-8', <bytes>, <int>, <int>, <str>)
    any: [int, str, bool, repr, len, list][<small>](<any>)
    any: (str if <bool> else repr)(<any>)
    any: {'a': len, 'b': str}[<key>](<sized>)
    any: {'a': len, 'b': str}.get(<key>, repr)(<sized>)
    any: <fn>(<any>)
    any: <fn0>()
    any: <fn2>(<any>, <any>)
    any: <type>(<any>)

    any: <num> + <num>
    any: <num> - <num>
    any: <num> * <num>
    any: <num> / <num>
    any: <num> // <num>
    any: <num> % <num>
    int: <num> ** <small>
    int: <int> << <small>
    int: <int> >> <small>
    int: <int> | <int>
    int: <int> & <int>
    int: <int> ^ <int>
    int: -<num>
    int: +<num>
    int: ~<int>
    bool: not <any>
    bool: not <container>
    str: <str> + <str>
    str: <str> * <small>
    bytes: <bytes> + <bytes>
    list: <list> + <list>
    list: <list> * <int>
    list: <small> * <list>
    tuple: <tuple> + <tuple>
    tuple: <tuple> * <int>
    dict: <dict> | <dict>
    dict: <mapping> | <dict>
    set: <set> | <set>
    set: <set> & <set>
    set: <set> - <set>
    set: <set> ^ <set>
    str: <percent> % <any>
    str: <percent> % (<any>, <any>)
    str: <percent> % <dict>
    str: '%s' % (<any>,)
    bool: <any> == <any>
    bool: <any> != <any>
    bool: <num> < <num>
    bool: <num> <= <num>
    bool: <num> > <num>
    bool: <num> >= <num>
    bool: <str> < <str>
    bool: <list> < <list>
    bool: <list> == <list>
    bool: <dict> == <dict>
    bool: <tuple> >= <tuple>
    bool: <set> <= <set>
    bool: <set> < <set>
    bool: <set> >= <set>
    bool: <set> > <set>
    bool: <set> == <set>
    bool: <any> is <any>
    bool: <any> is None
    bool: <list> is <list>
    bool: <any> is not <any>
    bool: <any> in <container>
    bool: <any> not in <container>
    bool: <str> in <str>
    bool: 1 in <list>
    bool: 'a' in <mapping>
    bool: 2 in [<any>, <any>]
    bool: 2 in (0, <int>, 3)
    bool: 3 in [q for q in <iterable> if <pred>]
    bool: 3 in (q for q in <iterable> if <pred>)
    bool: <num> < <num> < <num>
    bool: <int> == <int> != <int>
    bool: 0 < <num> in <list>
    any: <any> and <any>
    any: <any> or <any>
    any: <bool> and <any> or <any>
    any: <any> if <any> else <any>
    any: <any> if <bool> else <any>
    any: (q := <any>)
    list: [(q := <any>), q]
    list: [q := <any>, len([q])]

    any: <list>[<int>]
    any: <tuple>[<int>]
    any: <range>[<int>]
    str: <str>[<int>]
    int: <bytes>[<int>]
    any: <dict>[<key>]
    any: <counter>[<key>]
    any: <default>[<key>]
    any: [<any>, <any>, <any>][<small>]
    any: (<any>, <any>)[<bool>]
    any: {'a': <any>, 'b': <any>}[<key>]
    any: <nestedlist>[0][0]
    list: <list>[<slice>]
    list: <list>[<int>:]
    list: <list>[:<int>]
    list: <list>[<int>:<int>]
    list: <list>[::<int>]
    str: <str>[<int>:<int>]
    str: <str>[<slice>]
    tuple: <tuple>[<slice>]
    tuple: <tuple>[<int>:]
    bytes: <bytes>[<int>:]
    range: <range>[<int>:]
    range: <range>[<slice>]
    str: <match>[<small>]
    str: <match>[<key>]
    type: list[int]
    type: dict[str, int]

    list: [<any>, <any>]
    list: [<any>, *<iterable>, <any>]
    list: [*<iterable>]
    list: [*<iterable>, *<iterable>]
    tuple: (<any>, <any>)
    tuple: (*<iterable>, <any>)
    set: {<hashable>, <hashable>}
    set: {*<iterable>, <hashable>}
    dict: {<hashable>: <any>, <hashable>: <any>}
    dict: {'a': <any>, 'b': <any>}
    dict: {**<mapping>, 'a': <any>}
    dict: {'a': 0, **<mapping>}
    dict: {<key>: 1, **{<key>: 2}}
    dict: {1: 'x', <num>: 'y'}
    set: {1, <num>}
    list: [<any> for q in <iterable>]
    list: [q for q in <iterable>]
    list: [q for q in <iterable> if <pred>]
    list: [(q, h) for q in <iterable> for h in <iterable>]
    list: [h for q in <nestedlist> for h in q]
    list: [h for q in <iterable> if <pred> for h in [q, <any>]]
    list: [h for q in range(3) for h in range(q) if <pred>]
    list: [[h for h in <iterable>] for q in range(2)]
    list: [<any> for q, h in <pairs>]
    list: [0 for q in range(3) if <bool>]
    set: {q for q in <iterable>}
    set: {<hashable> for q in <iterable>}
    set: {h for h in range(4) if h != <num>}
    dict: {q: <any> for q in <iterable>}
    dict: {<hashable>: q for q in <iterable>}
    dict: {q: h for q, h in <pairs> if <pred>}
    dict: {h: 0 for h in 'abz' if h != <str>}
    iter: (q for q in <iterable>)
    iter: (q for q in <iterable> if <pred>)
    iter: (<any> for q in <iterable>)
    iter: (h for h in range(9) if h < <num>)
    iter: ((q, h) for q in range(3) for h in <iterable>)
    iter: (q for q in (h for h in range(9) if h != <num>) if q)
    iter: iter([<any>, 1, <any>])

    str: f'{<any>}'
    str: f'<{<any>!r}>'
    str: f'{<any>!s:>4}{<any>!a}'
    str: f'{<num>:{<spec>}}'
    str: f'{<str>:{<spec>}}'
    str: f'{<num>:>{<int>}}'
    str: f'{1:>{<int>}}{<any>}'
    str: f'{<float>:.{<small>}f}'
    str: f'{[<any>]}'

    fn: (lambda q: <any>)
    fn: (lambda q: <pred>)
    fn: (lambda q, h=<any>: h)
    fn: (lambda q: (q, <any>))
    fn: (lambda *q: len(q))
    fn: (lambda q: q == <any>)
    fn: (lambda q: [h for h in <iterable> if h == q])
    fn: <str>.count
    fn: <list>.index
    fn: <dict>.get
    fn0: (lambda: <any>)
    fn0: (lambda q=<any>: q)
    fn0: <list>.copy
    fn0: <str>.upper
    fn2: (lambda q, h: <any>)
    fn2: (lambda q, h: q if <bool> else h)
    fn2: (lambda q, h: q + h)
    int: (lambda *q: len(q))(*<iterable>)
    tuple: (lambda *q: q)(*<iterable>)
    any: (lambda q, *h: q)(*<iterable>)
    list: (lambda q=0, *h: list(h))(*<iterable>)
    list: (lambda **q: list(q))(**<dict>)
    dict: (lambda **q: q)(**<dict>)
    int: (lambda **q: len(q))(**<dict>)
    int: (lambda *q, **h: len(q) + len(h))(*<iterable>, **<dict>)
    any: (lambda a=0, b=0, **q: (a, b))(**<dict>)
    any: (lambda a=0, *, b=0: (a, b))(**<dict>)
    int: (lambda a, b=0: 1)(*<iterable>)
    any: (lambda a, b=<any>, *, c=<any>: (b, c))(<any>)
    any: (lambda q: lambda: q)(<any>)()
    any: max(*<iterable>)
    any: dict(**<dict>)
    any: <fn2>(*<iterable>)

    int: <int>.bit_length()
    bool: <float>.is_integer()
    str: <float>.hex()
    int: <list>.count(<any>)
    int: <list>.index(<any>)
    int: <list>.index(<any>, <int>)
    list: <list>.copy()
    int: <tuple>.count(<any>)
    int: <tuple>.index(<any>)
    dict: <mapping>.copy()
    dict: <dict>.copy()
    any: <dict>.get(<key>)
    any: <dict>.get(<key>, <any>)
    any: <mapping>.get(<hashable>, <any>)
    list: <dict>.items()
    list: <dict>.keys()
    list: <dict>.values()
    list: <dict>.most_common()
    list: <counter>.most_common()
    list: <counter>.most_common(<int>)
    dict: dict.fromkeys(<iterable>)
    dict: dict.fromkeys(<iterable>, <any>)
    set: <set>.copy()
    set: <set>.difference(<iterable>)
    set: <set>.intersection(<iterable>)
    bool: <set>.isdisjoint(<iterable>)
    bool: <set>.issubset(<iterable>)
    bool: <set>.issuperset(<iterable>)
    set: <set>.symmetric_difference(<iterable>)
    set: <set>.union(<iterable>)
    set: <set>.union(<iterable>, <iterable>)

    str: <str>.capitalize()
    str: <str>.casefold()
    str: <str>.center(<int>)
    str: <str>.center(<int>, 'x')
    int: <str>.count(<str>)
    int: <str>.count(<str>, <int>)
    bytes: <str>.encode()
    bytes: <str>.encode('ascii', 'replace')
    bool: <str>.endswith(<str>)
    bool: <str>.endswith((<str>, <str>))
    str: <str>.expandtabs(<int>)
    int: <str>.find(<str>)
    int: <str>.find(<str>, <int>, <int>)
    str: <str>.format(<any>, <any>)
    str: <brace>.format(<any>, <any>, a=<any>)
    str: <brace>.format(*<list>, **<dict>)
    str: '{:>4}{}'.format(<str>, <any>)
    int: <str>.index(<str>)
    bool: <str>.isalnum()
    bool: <str>.isalpha()
    bool: <str>.isascii()
    bool: <str>.isdecimal()
    bool: <str>.isdigit()
    bool: <str>.isidentifier()
    bool: <str>.islower()
    bool: <str>.isnumeric()
    bool: <str>.isprintable()
    bool: <str>.isspace()
    bool: <str>.istitle()
    bool: <str>.isupper()
    str: <str>.join(<list>)
    str: <str>.join(map(str, <iterable>))
    str: ','.join(str(q) for q in <iterable> if <pred>)
    str: <str>.ljust(<int>)
    str: <str>.lower()
    str: <str>.lstrip(<str>)
    tuple: <str>.partition(<str>)
    str: <str>.removeprefix(<str>)
    str: <str>.removesuffix(<str>)
    str: <str>.replace(<str>, <str>)
    str: <str>.replace(<str>, 'q', <int>)
    int: <str>.rfind(<str>)
    int: <str>.rindex(<str>)
    str: <str>.rjust(<int>)
    tuple: <str>.rpartition(<str>)
    list: <str>.rsplit(<str>)
    list: <str>.rsplit(<str>, <int>)
    str: <str>.rstrip()
    list: <str>.split()
    list: <str>.split(<str>)
    list: <str>.split(<str>, <int>)
    list: <str>.splitlines()
    list: <str>.splitlines(<bool>)
    bool: <str>.startswith(<str>)
    bool: <str>.startswith(<str>, <int>)
    str: <str>.strip()
    str: <str>.strip(<str>)
    str: <str>.swapcase()
    str: <str>.title()
    str: <str>.upper()
    str: <str>.zfill(<int>)
    str: str.upper(<str>)
    int: list.index(<list>, <any>)
    list: list.copy(<list>)
    str: <bytes>.decode()
    str: <bytes>.decode('utf-8', 'replace')
    str: <bytes>.hex()

    date: date(2024, <int>, 1)
    date: date.fromisoformat(<isodate>)
    date: date.fromordinal(<int> + 700000)
    bool: date.today().year > <int>
    date: <date>.replace(day=<int>)
    str: <date>.isoformat()
    tuple: <date>.isocalendar()
    int: <date>.isoweekday()
    int: <date>.weekday()
    int: <date>.toordinal()
    str: <date>.strftime('%Y/%d')
    str: <date>.strftime(<str>)
    int: <date>.day
    int: <date>.month
    int: <date>.year
    date: <date> + <timedelta>
    date: <date> - <timedelta>
    timedelta: <date> - <date>
    bool: <date> < <date>
    datetime: datetime(2024, 1, <int>, <int>)
    datetime: datetime(2024, 1, 1, tzinfo=<timezone>)
    datetime: datetime.combine(<date>, <time>)
    datetime: datetime.fromisoformat(<isodate>)
    datetime: datetime.fromtimestamp(<num>)
    datetime: datetime.fromtimestamp(<num>, <timezone>)
    datetime: datetime.strptime(<isodate>, '%Y-%m-%d')
    datetime: datetime.strptime('2024-01-02', <str>)
    bool: datetime.now(<timezone>).year > 2000
    timedelta: datetime.now(<timezone>).utcoffset()
    bool: datetime.today().year > <int>
    bool: datetime.utcnow().year > <int>
    datetime: <datetime>.replace(hour=<int>)
    datetime: <datetime>.astimezone(<timezone>)
    date: <datetime>.date()
    time: <datetime>.time()
    float: <datetime>.timestamp()
    str: <datetime>.isoformat()
    tuple: <datetime>.isocalendar()
    int: <datetime>.isoweekday()
    int: <datetime>.weekday()
    int: <datetime>.toordinal()
    str: <datetime>.strftime('%H')
    str: <datetime>.tzname()
    timedelta: <datetime>.utcoffset()
    int: <datetime>.year
    int: <datetime>.month
    int: <datetime>.day
    int: <datetime>.hour
    int: <datetime>.minute
    int: <datetime>.second
    int: <datetime>.microsecond
    timezone: <datetime>.tzinfo
    time: time(<int>, <int>)
    time: time.fromisoformat(<str>)
    time: <time>.replace(minute=<int>)
    str: <time>.isoformat()
    str: <time>.strftime('%H')
    str: <time>.tzname()
    timedelta: <time>.utcoffset()
    int: <time>.hour
    int: <time>.minute
    int: <time>.second
    int: <time>.microsecond
    timezone: <time>.tzinfo
    timedelta: timedelta(days=<num>, seconds=<int>)
    timedelta: <timedelta> * <int>
    timedelta: <timedelta> + <timedelta>
    timedelta: -<timedelta>
    float: <timedelta> / <timedelta>
    float: <timedelta>.total_seconds()
    int: <timedelta>.days
    int: <timedelta>.seconds
    int: <timedelta>.microseconds
    timezone: timezone(<timedelta>)
    timezone: timezone.utc
    bool: UTC == <timezone>
    bool: clock.time() > <int>
    bool: clock.monotonic() > <int>
    bool: clock.perf_counter() > <int>
    none: clock.sleep(<int>)


    record: Item(name=<str>)
    record: Item(name=<str>, count=<num>)
    record: Item(name='a', tags=<list>)
    record: Item(**<dict>)
    record: Item(name='a', **<dict>)
    record: Item.model_validate(<dict>)
    record: Item.model_validate({'name': <any>, 'count': <any>})
    record: Item.model_validate_json(<json>)
    dict: Item.model_json_schema()
    box: Box(x=<any>)
    box: Box(x=<any>, z=<any>)
    box: Box(y=<any>)
    box: Box(w=<any>)
    box: Box(**<dict>)
    box: Box(x=<record>)
    any: Shelf(boxes=<list>)
    any: Shelf(boxes=[<record>, <record>])
    any: Shelf(by=<dict>)
    any: Shelf(pair=<tuple>)
    any: Shelf(pair=[<any>, <any>])
    any: Shelf(kinds=<iterable>)
    any: Shelf(kinds=iter([1, <any>])).kinds
    any: Shelf(kinds=(q for q in [<any>])).kinds
    any: Shelf(boxes=iter([<record>, <any>])).boxes
    any: Shelf(pair=iter([<any>, <any>])).pair
    any: Box(x=iter([1, <any>])).x
    any: Shelf(when=<any>)
    any: Shelf(low=<int>)
    any: Shelf(short=<str>)
    str: Shelf(short=<str>).short
    list: Shelf(boxes=[<record>]).boxes
    str: <record>.name
    int: <record>.count
    list: <record>.tags
    any: <box>.x
    any: <box>.y
    any: <box>.z
    any: <box>.w
    record: <record>.model_copy()
    record: <record>.model_copy(update=<dict>)
    record: <record>.model_copy(update={'count': <any>})
    record: <record>.model_copy(update={<key>: <any>})
    record: <record>.model_copy(deep=<bool>)
    dict: <record>.model_dump()
    dict: <box>.model_dump(exclude_none=<bool>)
    dict: Box(x=<any>, z=<any>).model_dump(exclude_none=True)
    str: <record>.model_dump_json()
    str: <record>.model_dump_json(indent=<small>)
    bool: <record> == <record>
    str: str(<record>)
    list: list(<record>)
    dict: dict(<record>)

    any: json.loads(<json>)
    str: json.dumps(<any>)
    str: json.dumps(<dict>, sort_keys=<bool>)
    str: json.dumps(<list>, indent=<small>)
    str: json.dumps(<any>, default=str)
    str: json.dumps(<dict>, separators=(<str>, ':'))
    error: json.JSONDecodeError('m', <str>, <small>)
    float: math.acos(<num>)
    float: math.asin(<num>)
    float: math.atan(<num>)
    float: math.atan2(<num>, <num>)
    int: math.ceil(<num>)
    float: math.copysign(<num>, <num>)
    float: math.cos(<num>)
    float: math.cosh(<num>)
    float: math.degrees(<num>)
    float: math.erf(<num>)
    float: math.exp(<num>)
    float: math.fabs(<num>)
    int: math.factorial(<int>)
    int: math.floor(<num>)
    float: math.fmod(<num>, <num>)
    int: math.gcd(<int>, <int>)
    float: math.hypot(<num>, <num>)
    bool: math.isclose(<num>, <num>)
    bool: math.isclose(<num>, <num>, abs_tol=<num>)
    bool: math.isfinite(<num>)
    bool: math.isinf(<num>)
    bool: math.isnan(<num>)
    int: math.isqrt(<int>)
    float: math.log(<num>)
    float: math.log(<num>, <num>)
    float: math.log10(<num>)
    float: math.log1p(<num>)
    float: math.log2(<num>)
    tuple: math.modf(<num>)
    float: math.pow(<num>, <num>)
    num: math.prod(<iterable>)
    num: math.prod(<iterable>, start=<num>)
    float: math.radians(<num>)
    float: math.sin(<num>)
    float: math.sinh(<num>)
    float: math.sqrt(<num>)
    float: math.tan(<num>)
    float: math.tanh(<num>)
    int: math.trunc(<num>)
    float: math.pi * <num>
    any: random.choice([<any>])
    any: random.choice(<list>) if 0 else <int>
    int: random.randint(<small>, <small>) * 0
    int: (lambda q: random.randint(q, q))(<int>)
    bool: random.random() < 2
    iter: itertools.chain(<iterable>, <iterable>)
    iter: itertools.chain(q for q in range(9) if <pred>)
    iter: itertools.chain(*<nestedlist>)
    iter: itertools.chain([<any>], <iter>)
    iter: itertools.combinations(<iterable>, 2)
    iter: itertools.combinations(<list>, <small>)
    iter: itertools.combinations(range(3), <int>)
    iter: itertools.combinations((q for q in range(5) if <pred>), 2)
    iter: itertools.islice(itertools.count(<int>, <int>), <small>)
    iter: zip(itertools.count(<int>), <iterable>)
    iter: itertools.islice(<iterable>, <int>)
    iter: itertools.islice(<iterable>, <int>, <int>)
    iter: itertools.islice(<iterable>, 0, 9, <int>)
    iter: itertools.islice((q for q in range(9) if <pred>), 5)
    iter: itertools.product(<iterable>, <iterable>)
    iter: itertools.product((q for q in range(4) if <pred>))
    iter: itertools.product([0, 1], repeat=<small>)
    iter: itertools.repeat(<any>, <small>)
    iter: itertools.repeat(0, <int>)
    iter: zip(itertools.repeat(<any>), <iterable>)
    counter: collections.Counter(<iterable>)
    counter: collections.Counter(<dict>)
    counter: collections.Counter(q for q in range(9) if <pred>)
    default: collections.defaultdict(list)
    default: collections.defaultdict(<fn0>)
    default: collections.defaultdict(lambda: <any>)
    default: collections.defaultdict(<fn0>, <dict>)
    default: collections.defaultdict(int, <pairs>)
    dict: collections.OrderedDict(<pairs>)
    dict: collections.OrderedDict(<dict>)
    dict: collections.OrderedDict((h, 1) for h in 'abc' if <bool>)
    bool: <str> in string.ascii_letters
    bool: <str> in string.ascii_lowercase
    bool: <str> in string.ascii_uppercase
    str: string.digits[:<int>]
    str: string.hexdigits[<int>]
    int: string.octdigits.find(<str>)
    int: string.printable.index(<str>)
    str: <str>.strip(string.punctuation)
    str: <str>.strip(string.whitespace)

    pattern: re.compile(<regex>)
    pattern: re.compile(<regex>, re.I)
    pattern: re.compile('a', <int> * 0)
    str: <pattern>.pattern
    list: <pattern>.findall(<str>)
    iter: <pattern>.finditer(<str>)
    match: <pattern>.fullmatch(<str>)
    match: <pattern>.match(<str>)
    match: <pattern>.search(<str>)
    list: <pattern>.split(<str>)
    str: <pattern>.sub(<str>, <str>)
    str: re.escape(<str>)
    list: re.findall(<regex>, <str>)
    list: re.findall(<regex>, 'ab ba', re.IGNORECASE)
    iter: re.finditer(<regex>, <str>)
    list: [q.start() for q in re.finditer(<regex>, 'abba')]
    match: re.fullmatch(<regex>, <str>)
    match: re.match(<regex>, <str>)
    match: re.match('(a)?(b)?', <str>)
    match: re.search(<regex>, <str>)
    match: re.search(<regex>, 'xab')
    bool: re.search(<regex>, <str>) is None
    list: re.split(<regex>, <str>)
    list: re.split(<regex>, 'abcab', <int>)
    str: re.sub(<regex>, <str>, 'abba')
    str: re.sub('a', <str>, <str>, <int>)
    str: re.sub(<regex>, lambda q: <str>, 'abba')
    str: re.sub('b', lambda q: q.group().upper(), <str>, count=<int>)
    int: re.A | re.ASCII | re.I | re.M | re.MULTILINE | re.S | re.DOTALL | re.X | re.VERBOSE | re.U | re.UNICODE | <int>
    error: re.error(<str>)
    int: <match>.start(<small>)
    int: <match>.end()
    tuple: <match>.span(<small>)
    str: <match>.group()
    str: <match>.group(<small>)
    str: <match>.group(<key>)
    tuple: <match>.group(0, 1)
    tuple: <match>.groups()
    tuple: <match>.groups(<any>)
    dict: <match>.groupdict()
    dict: <match>.groupdict(<any>)

    tuple: <error>.args
    str: str(<error>)
    any: <error>.args[0]
    bool: <error> == <error>

    any: <any>.nothing
    any: <list>.append.nothing
    any: <any>(<any>)
    any: <any>[<any>]
    any: <num> + <str>
    any: undefined_name
    any: ().index(<any>)
    any: [].pop(<int>)
    any: {}[<any>]
    any: {}.pop(<hashable>)
    any: int([<any>])
    any: dict([[<any>]])
    any: len(<any>)
    any: next(iter(()))
    any: 1 // <int>
    any: chr(-<int>)
    any: (lambda: 0)(*<list>)
    any: (lambda a: 0)(**<dict>)
    any: (lambda a: 0)(1, **<dict>)
    any: math.sqrt(-<num>)
    any: [][<int>]
    any: max([])
    any: max(<any>)
    any: sorted([1, <any>, 'a'])
    any: 'x'.index(<str>)
    any: b'\xff'.decode(<str>)
    any: Item()
    any: Item(name=<any>, count=<any>)

    any: next(<iter!>)
    any: next(<iter!>, None)
    bool: <any> in <iter!>
    bool: <num> not in <iter!>
    list: list(zip(<list>, <iter!>))
    list: list(zip(<iter!>, <list>))
    list: list(zip(<iterable>, <iter!>, <iter!>))
    list: list(zip(<iter!>, <list>, strict=True))
    list: list(map(<fn2>, <iterable>, <iter!>))
    list: list(map(<fn>, <iter!>))
    list: list(map(lambda q: <any>, <iter!>))
    any: next(map(<fn>, <iter!>), None)
    any: next(zip(<iter!>, <iterable>), None)
    any: next(zip(<iterable>, <iter!>), None)
    bool: any(<iter!>)
    bool: all(<iter!>)
    bool: any(<pred> for q in <iter!>)
    bool: all(<pred> for q in <iter!>)
    bool: any(map(lambda q: <pred>, <iter!>))
    bool: all(filter(lambda q: <pred>, <iter!>))
    any: next((q for q in <iter!> if <pred>), None)
    any: next(filter(lambda q: <pred>, <iter!>), None)
    list: [q for q in <iter!> if <pred>]
    list: [q for q, h in zip(<iter!>, <list>)]
    list: [h for q in <iterable> for h in <iter!>]
    list: list(itertools.islice(<iter!>, <int>))
    list: list(itertools.islice(<iter!>, <int>, <int>))
    list: list(itertools.islice(<iter!>, 0, 4, <int>))
    any: next(itertools.islice(<iter!>, <int>, None), None)
    list: list(itertools.chain(<iterable>, <iter!>))
    any: next(itertools.chain(<iterable>, <iter!>), None)
    any: next(enumerate(<iter!>, <int>), None)
    list: list(itertools.product(<iter!>, <list>))
    list: list(itertools.combinations(<iter!>, <small>))
    list: [*itertools.islice(<iter!>, <small>), <any>]
    list: [*<iter!>]
    tuple: tuple(<iter!>)
    set: set(<iter!>)
    any: max(<iter!>, default=<any>)
    any: min(<iter!>, key=<fn>, default=None)
    num: sum(<iter!>)
    list: sorted(<iter!>, key=<fn>)
    int: (lambda *q: len(q))(*<iter!>)
    str: ','.join(map(str, <iter!>))
    counter: collections.Counter(<iter!>)
    dict: dict(zip(<iter!>, <iterable>))
    dict: {q: <any> for q in <iter!>}
    dict: dict.fromkeys(<iter!>, <any>)
    num: math.prod(<iter!>)
    bool: <set>.isdisjoint(<iter!>)
    set: <set>.union(<iter!>)
    any: Shelf(kinds=<iter!>)
    bool: isinstance(<iter!>, list)
    bool: 1 < <num> in <iter!>

    any: <list!>.pop()
    any: <list!>.pop(<int>)
    any: <dict!>.pop(<key>)
    any: <dict!>.pop(<key>, <any>)
    tuple: <dict!>.popitem()
    any: <dict!>.setdefault(<key>)
    any: <dict!>.setdefault(<key>, <any>)
    any: <dict!>.setdefault('a', <any>)
    any: <default!>[<key>]
    any: <default!>[<hashable>]
    any: <set!>.pop()
    any: {}.pop
    any: <bool> and next(<iter!>)
    any: <bool> or next(<iter!>, None)
    any: next(<iter!>) if <bool> else 0
    any: <bool> and <list!>.append(<any>)
    any: <list!>.pop() if <bool> else None
    any: <num> < 2 < next(<iter!>)
    list: [q for q in <iterable> if q in <iter!>]
    any: any(q in <iter!> for q in <iterable>)
    any: <bool> and (q := <any>)
    list: [(g := q) for q in <iterable> if <pred>]
    any: any((g := q) == <any> for q in <iterable>)
    list: [0 for <list!>[0] in <iterable>]
    list: [next(<iter!>, 0) for q in <iterable>]
    list: [<list!>.append(q) for q in <iterable>]
    list: sorted(<iterable>, key=lambda q: next(<iter!>, 0))
    list: list(map(lambda q: <list!>.append(q), <iterable>))
    list: list(filter(lambda q: next(<iter!>, 0), <iterable>))
    any: max(<iterable>, key=lambda q: next(<iter!>, 0), default=0)
    any: <bool> and (lambda q: q.append(1))(<list!>)
    any: <bool> and (lambda: next(<iter!>, 0))()
    any: (lambda: <list!>.append(1))() if <bool> else 0
    bool: <num> in (next(<iter!>, 9) for q in range(4))
    bool: <num> in (q for q in range(4) if <list!>.append(q) is None)
    bool: <num> in map(lambda q: <list!>.append(q) or q, range(4))
    any: next(zip(<iterable>, (<list!>.append(q) or q for q in range(4))), 0)
    str: re.sub('a', lambda q: <list!>.append(1) or 'x', <str>)
    any: collections.defaultdict(lambda: <list!>.append(1), {'a': 0})[<key>]
""")

# -- statements; `P` stands for a variable that records the path, and `a`, `b`, `c` for new
# variables, which must not hold values of earlier statements

STATEMENTS = tuple(
    _template(line, is_statement=True)
    for line in (
        "<list!>.append(<any>)",
        "<list!>.clear()",
        "<list!>.extend(<iterable>)",
        "<list!>.extend(<iter!>)",
        "<list!>.insert(<int>, <any>)",
        "<list!>.insert(0, <any>)",
        "<list!>.remove(<any>)",
        "<list!>.reverse()",
        "<list!>.sort()",
        "<list!>.sort(key=<fn>)",
        "<list!>.sort(reverse=<bool>)",
        "<list!>.sort(key=lambda q: str(q) < <str>, reverse=<bool>)",
        "<list!>[<int>] = <any>",
        "<list!>[0] = <any>",
        "<list!>[<int>:] = <iterable>",
        "<list!>[<slice>] = <iterable>",
        "<list!>[:] = [q for q in range(5) if <pred>]",
        "<list!>[<int>:<int>] = []",
        "del <list!>[<int>]",
        "del <list!>[<int>:]",
        "del <list!>[<slice>]",
        "del <list!>[:<int>]",
        "<list!> += <iterable>",
        "<list!> += [q for q in range(5) if <pred>]",
        "<list!> *= <int>",
        "<list!>[0] += <num>",
        "<list!>[<int>] += <num>",
        "<list!>[0], <list!>[1] = <any>, <any>",
        "<list!>[0], *<list!>[1:] = <iterable>",
        "<dict!>[<hashable>] = <any>",
        "<dict!>[<key>] = <any>",
        "<dict!>['a'] = <any>",
        "del <dict!>[<key>]",
        "<dict!>.update(<dict>)",
        "<dict!>.update(<pairs>)",
        "<dict!>.update(<pairs>, a=<any>)",
        "<dict!>.update(**<dict>)",
        "<dict!>.update(**{<str>: 1})",
        "<dict!>.update(a=<any>)",
        "<dict!>.update((h, 0) for h in 'ab' if <bool>)",
        "<dict!>.update(zip(<iterable>, <iterable>))",
        "<dict!>.clear()",
        "<dict!> |= <dict>",
        "<dict!> |= <pairs>",
        "<dict!>[<key>] += <num>",
        "<counter!>[<key>] += <int>",
        "<counter!>.update(<iterable>)",
        "<counter!>[<hashable>] = <int>",
        "<default!>[<key>] += <any>",
        "<default!>[<key>] = <any>",
        "<default!>['z']",
        "<set!>.add(<hashable>)",
        "<set!>.discard(<hashable>)",
        "<set!>.remove(<hashable>)",
        "<set!>.clear()",
        "<set!>.update(<iterable>)",
        "<set!>.update(<iterable>, <iterable>)",
        "<set!> |= <set>",
        "<set!> &= <set>",
        "<set!> -= <set>",
        "<set!> ^= <set>",
        "<record!>.count = <any>",
        "<record!>.name = <any>",
        "<record!>.tags = <list>",
        "<record!>.count += <num>",
        "<record!>.tags += <list>",
        "<record!>.tags.append(<any>)",
        "<box!>.x = <any>",
        "<box!>.z = <any>",
        "a, b = <tuple>",
        "a, *b = <iterable>",
        "*a, b = <iterable>",
        "a, *b, c = <iterable>",
        "[a, (b, *c)] = <any>, <iterable>",
        "(a, b), c = <iterable>, <any>",
        "a, b = <iter!>",
        "a, *b = <iter!>",
        "a, b = b, a = <any>, <any>",
        "a = b = <any>",
        "a: int = <any>",
        "a = <any>\na += <any>",
        "a = <num>\na -= <num>\na *= <num>",
        "a = <num>\na //= <num>\na %= <num>",
        "a = <num>\na /= <num>\na **= <small>",
        "a = <int>\na <<= <small>\na >>= 1\na |= <int>\na &= <int>\na ^= <int>",
        "a = <any>\ndel a\na = 1",
        "for a in <iterable>:\n    pass",
        "for a in <iter!>:\n    break",
        "for a in <iter!>:\n    pass",
        "for a, b in zip(<iter!>, <iterable>):\n    pass",
        "for a in (q for q in range(9) if <pred>):\n    pass",
        "for a in <list!>:\n    <list!>.pop()",
        "for a in range(3):\n    <list!>.append(<any>)",
        "for a in range(2):\n    <dict!>[a] = <any>",
        "for a in 'ab':\n    next(<iter!>, None)\n    b = <any>",
        "for a in <iter!>:\n    b = next(<iter!>, None)\n    break",
        "a = 3\nwhile a:\n    a -= 1\n    b = <any>\nelse:\n    b = [b]",
        "for a in range(9):\n    if a == 2:\n        continue\n    if a == 4:\n        break\n    b = <any>",
        "if <bool>:\n    P = 1\nelse:\n    P = 2",
        "if <any>:\n    P = 1\n    a = <any>\nelif <bool>:\n    P = 2\nelse:\n    P = 3",
        "for a in <iterable>:\n    P = a and 1\n    b = <any>",
        "match <list>:\n    case [a]:\n        P = 1\n    case [a, *b]:\n        P = 2\n    case _:\n        P = 3",
        "match <any>:\n    case 1 | 'a':\n        P = 1\n    case [a, b]:\n        P = 2\n    case None | True:\n        P = 3\n    case {'a': a}:\n        P = 4\n    case a:\n        P = 5",
        "match <dict>:\n    case {'a': a, **b}:\n        P = 1\n    case a:\n        P = 2",
        "match <tuple>:\n    case (a, [*b]) if <bool>:\n        P = 1\n    case (a, *b):\n        P = 2\n    case a:\n        P = 3",
        "c = <record>\nmatch {'name': 1, 'a': 2, 'b': 3}:\n    case {c.name: a, **b}:\n        P = 1\n    case _:\n        P = 2",
        "c = Box(z=<key>)\nmatch {'a': 1, 'b': 2}:\n    case {c.z: a}:\n        P = 1\n    case _:\n        P = 2",
        "c = <box>\nmatch <any>:\n    case c.z:\n        P = 1\n    case _:\n        P = 2",
        "match [[1, 2], <any>]:\n    case [[a, *b], c]:\n        P = 1",
        "def fn(q=<any>):\n    return q\na = fn()",
        "def fn(q, h=<list>):\n    h.append(q)\n    return len(h)\na = fn(<any>)\nb = fn(1)",
        "def fn(q, h=[]):\n    h += q\n    return h\nfn(<iterable>)\na = len(fn([]))",
        "def fn(*q, **h):\n    return len(q), list(h)\na, b = fn(*<iterable>, **<dict>)",
        "def fn(a=1, *q, b=2, **h):\n    return a, b, len(q)\na, b, c = fn(*<iterable>, **<dict>)",
        "def fn(**h):\n    global a, b\n    a = list(h)\n    b = len(h)\nfn(**{<str>: 1})",
        "def fn(**h):\n    global a, b\n    a = list(h)\n    b = len(h)\nfn(**<dict>)",
        "def fn(*q):\n    global a, b\n    a = len(q)\n    b = q[-1]\nfn(*<iterable>)",
        "def fn(*q):\n    global a, b\n    a = len(q)\n    b = bool(q)\nfn(0, *<iterable>)",
        "def fn(q=0, *h, **g):\n    global a, b\n    a = q\n    b = [len(h), len(g)]\nfn(*<iterable>, **<dict>)",
        "def fn(q=0, h=<any>):\n    global a, b\n    a = q\n    b = h\nfn(*<iterable>)",
        "def fn(q):\n    global a\n    a = q\n    return q\nlist(map(fn, <iterable>))",
        "def fn(q, h=0):\n    global a\n    a = h\n    return q\nlist(map(fn, range(9), <iterable>))",
        "def fn(q):\n    global a\n    a = q\n    return 0\nlist(filter(fn, <iterable>))",
        "def fn(q):\n    global a\n    a = q\n    return 0\nsorted(<iterable>, key=fn)",
        "def fn(q):\n    global a\n    a = q\n    return 0\nmax(<iterable>, key=fn, default=0)",
        "def fn(q):\n    global a\n    a = q.start()\n    return 'x'\nre.sub(<regex>, fn, <str>)",
        "def fn(q):\n    global a\n    a = q.group()\n    return <str>\nre.sub('.', fn, 'abba', <int>)",
        "def fn(**h):\n    h['z'] = 1\n    return h\na = len(fn(**<dict>))",
        "def fn(q):\n    def g():\n        nonlocal q\n        q = [q, <any>]\n        return q\n    return g\na = fn(<any>)\nb = a()\nc = a()",
        "c = 0\ndef fn():\n    global c\n    c = <any>\nfn()",
        "def fn():\n    try:\n        return <any>\n    finally:\n        pass\na = fn()",
        "a = [lambda: q for q in <iterable>]\nb = a[0]()",
        "a = {q: (lambda: q) for q in 'ab'}\nb = len(a)",
        "a = (lambda q: (lambda: next(q, None)))(iter(<iterable>))\nb = a()\nc = a()",
        "a = []\nb = iter(a)\na.extend(<iterable>)\nc = next(b, None)",
        "a = [1, 2, 3]\nb = iter(a)\nnext(b)\ndel a[:<int>]\nc = next(b, None)",
        "a = [0]\nb = (q for q in a)\na *= <int>\nc = len(list(b))",
        "a = {'a': 1}\nb = iter(a)\na.update(<dict>)\nc = list(b)",
        "a = [1, 2]\nb = reversed(a)\na.insert(0, <any>)\nc = list(b)",
        "a = [1, 2]\nb = map(str, a)\na.append(<any>)\nc = len(list(b))",
        "a = [1, 2]\nb = zip(a, range(9))\na += <iterable>\nc = len(list(b))",
        "a = iter(range(9))\nb = zip(a, a)\nc = <num> in a\nc = next(b)",
        "a = iter(range(9))\nb = (q for q in a if q != <num>)\nnext(b)\nc = next(a)",
        "a = iter(range(9))\nb = itertools.islice(a, <int>)\nlist(b)\nc = next(a)",
        "a = iter(range(9))\nb = itertools.chain(<iterable>, a)\nnext(b, None)\nc = next(a)",
        "a = [[]]\nb = a * 2\nb[0].append(<any>)\nc = len(a[0])",
        "a = {}\na['a'] = a.get('a', 0) + <num>\nb = a",
        "a = collections.defaultdict(lambda: next(b))\nb = iter(range(9))\na[<key>]\na['z']\nc = next(b)",
        "class Made(BaseModel):\n    v: int | str | list | None = <any>\n    w: Any = <any>\na = Made()\nb = a.v",
        "class Made(Item):\n    more: int = <any>\na = Made(name='a')\nb = a.more",
        "c = int if <bool> else str\nclass Made(BaseModel):\n    v: c\na = Made(v='1')\nb = a.v",
        "class Made(Item if <bool> else Box):\n    pass\na = Made\nb = list(Made.model_json_schema()['properties'])",
        "class Made(KeyError if <bool> else ValueError):\n    pass\na = isinstance(Made('m'), KeyError)\nb = str(Made('m'))",
        "class Made(BaseModel):\n    v: Any = Field(default=<any>)\na = Made(**<dict>).v",
        "class Made(BaseModel):\n    v: list[Item] | Item = Item(name='a')\na = Made(v=<list>)\nb = Made(v=<record>).v",
        "for <list!>[<int>] in range(3):\n    pass",
        "for <dict!>[<key>] in 'ab':\n    pass",
        "for <dict!>['a'], a in [['x', <any>], ['y', <any>]]:\n    pass",
        "<list!>[<int>], a = <any>, <any>",
        "<list!>[0:<int>] += [1]",
        "<dict!>[(1, <hashable>)] = 1",
        "<dict!>[(1, <hashable>)] = <dict!>.get((1, 2), 0)",
        "(<list!>.append if <bool> else <list!>.extend)([1, 2])",
        "(<list!>.append if <bool> else <list!>.remove)(1)",
        "[<list!>.append, <list!>.extend][<bool>]('ab')",
        "(<dict!>.update if <bool> else <dict!>.get)({'z': 1})",
        "(<set!>.add if <bool> else <set!>.discard)(1)",
        "a = [[1], [2]]\na[0].append(<any>)\na[1][0] = <any>\nb = len(a[0])\nc = a[1][0]",
        "a = {'x': [1, 2, 3], 'y': {}}\na['x'].remove(<num>)\na['y'][<key>] = 1\nb = a['x'][0]\nc = list(a['y'])",
        "a = [Item(name='a')]\na[0].count = <any>\na[0].tags.insert(<int>, 'q')\nb = a[0].count\nc = len(a[0].tags)",
        "a = [iter(range(9))]\n<num> in a[0]\nb = next(a[0])",
        "a = {'x': iter(range(9))}\nlist(zip(<iterable>, a['x']))\nb = next(a['x'])",
        "def fn(q):\n    return <num> in q\na = iter(range(9))\nfn(a)\nb = next(a)",
        "def fn(q):\n    q.append(<any>)\n    q[0] = <any>\na = [0]\nfn(a)\nb = len(a)\nc = a[0]",
        "def fn(*q):\n    return next(q[0])\na = iter(range(9))\nlist(itertools.islice(a, <int>))\nb = fn(a)",
        "a = iter(range(9))\nb = map(lambda q: q == <num>, a)\nany(b)\nc = next(a)",
        "a = iter(range(9))\nb = enumerate(a)\nc = [h for h in zip(<iterable>, b)]\nb = next(a)",
        "a = iter(range(9))\nb = filter(lambda q: q > <int>, a)\nnext(b)\nc = next(a)",
        "a = iter(range(9))\nb, *c = zip(<list>, a)\nb = next(a)",
        "a = iter('abc')\nb = dict(zip(<iterable>, a))\nc = list(a)",
        "a = iter(range(9))\nb = ''.join(q for q in map(str, a) if q < <str>)\nc = list(a)",
        "a = (q for q in range(9) if q > <int>)\nb = next(a)\nc = next(a)",
        "a = (h for q in range(3) for h in range(q) if h != <int>)\nb = next(a)\nc = len(list(a))",
        "a = itertools.chain(range(2), (q for q in range(9) if q < <int>))\nb = len(list(a))",
        "a = itertools.chain(*[[0], <iterable>])\nb = len(list(a))",
        "a = itertools.count(<int>)\nb = next(a)\n<int> in itertools.islice(a, 3)\nc = next(a)",
        "a = [1, 2, 3]\nfor b in a:\n    a.pop(<int>)\n    break\nc = len(a)",
        "a = [0, 1, 2, 3, 4]\nb = iter(a)\nnext(b)\na.sort(key=lambda q: q != <num>)\nc = next(b)",
        "a = [0, 1, 2]\nb = iter(a)\nnext(b)\na.insert(<int>, 7)\nc = next(b)",
        "a = {0: 1, 1: 2}\na.pop(<num>, None)\na[0] = 5\nb = list(a)[0]\nc = a.popitem()[0]",
        "a = {1: 'x'}\na[<any>] = 'y'\nb = list(a)[0]\nc = list(a.values())[0]",
        "a = {1}\na.add(<num>)\nb = list(a)[0]\nc = type(b).__name__",
        "a = collections.Counter('ab')\na[<key>] += 1\nb = a.most_common(1)\nc = list(a)",
        "a = collections.Counter()\na[<str>] += 0\nb = len(a)",
        "a = collections.defaultdict(list)\na[<key>].append(<any>)\nb = len(a)\nc = list(a)",
        "a = collections.defaultdict(int)\na[<key>]\nb = 'a' in a\nc = len(a)",
        "a = {'x': 0}\na |= {h: 1 for h in 'xy' if h != <str>}\nb = len(a)",
        "a = {'x': 0}\na.update((h, 1) for h in 'xy' if <bool>)\nb = len(a)",
        "match [<int>, 5, 1]:\n    case [1, a, _] | [_, _, a]:\n        P = 1",
        "match {'k': <any>, 'm': 1}:\n    case {'k': 1, 'm': a} | {'k': _, 'm': _, **a}:\n        P = 1",
        "match [1, 2, <any>]:\n    case [a, *b] if (c := <any>):\n        P = 1\n    case _:\n        P = 2",
        "a = Box(x=<any>)\nb = type(a.x).__name__\nc = isinstance(a.x, Item)",
        "a = Box(x=<any>, z=<any>).model_dump(exclude_none=True)\nb = list(a)\nc = len(a)",
        "a = json.loads(json.dumps(<dict>))\nb = list(a)\nc = len(a)",
        "a = <percent> % <dict>\nb = '%s' % <any>",
        "raise ValueError(<any>)",
        "raise (KeyError if <bool> else ValueError)('m')",
        "raise OwnError(<any>) from ValueError('x')",
        "raise <error>",
        "try:\n    raise <error>\nexcept Exception as q:\n    a = q\n    raise",
        "try:\n    a = <any>\nfinally:\n    b = <any>",
        "try:\n    raise KeyError(<any>)\nexcept (KeyError, IndexError) as q:\n    a = str(q)",
        "try:\n    a = {}[<hashable>]\nexcept LookupError as q:\n    a = q.args",
        "assert not <any>, <any>",
        "assert False, <any>",
        "def fn():\n    exit(<int>)\na = fn",
        "def fn():\n    quit(<int>)\na = fn",
        "pass",
    )
)
# Aliases, and values that share data with a variable: a change of one shows in the other.
SHARES = _templates("""
    iter: iter(<list!>)
    iter: iter(<dict!>)
    iter: iter(<set!>)
    iter: (q for q in <list!>)
    iter: (q for q in <list!> if q != 7)
    iter: (h for q in range(2) for h in <list!>)
    iter: map(str, <list!>)
    iter: filter(None, <list!>)
    iter: zip(<list!>, range(9))
    iter: zip(range(9), <list!>)
    iter: enumerate(<list!>)
    iter: reversed(<list!>)
    iter: itertools.chain(<list!>, [9])
    iter: itertools.islice(<list!>, 5)
    iter: itertools.repeat(<list!>, 2)
    iter: map(<list!>.count, range(3))
    iter: (q for q in range(3) if q in <list!>)
    iter: iter(<iter!>)
    iter: zip(<iter!>, range(9))
    iter: (q for q in <iter!>)
    iter: map(str, <iter!>)
    iter: filter(None, <iter!>)
    iter: enumerate(<iter!>)
    iter: itertools.islice(<iter!>, 4)
    iter: itertools.chain(<iter!>, 'ab')
    any: [<list!>]
    any: {'a': <list!>}
    any: (<list!>, <dict!>)
    any: Box(z=<list!>)
    list: <list!>
    dict: <dict!>
    set: <set!>
    iter: <iter!>
    fn0: (lambda: len(<list!>))
    fn0: (lambda: list(<dict!>))
    fn0: (lambda q=<list!>: q[0])
    fn0: <list!>.copy
    fn0: <dict!>.keys
    fn0: (lambda: next(<iter!>, None))
    any: <dict!>.get
    any: <list!>.index
    list: <dict!>.values()
    list: <dict!>.keys()
""")
# Expressions that depend on a variable, by its kind. `V` is the variable.
PROBES: dict[str, tuple[str, ...]] = {
    "any": (
        *("str(V)", "type(V).__name__", "bool(V)", "V == 1", "V is None", "[V][0]", "not V", "V or 0"),
        *("len(V)", "isinstance(V, (int, str))", "type(V)", "f'{V}'", "V in (1, 'a')"),
    ),
    "list": (
        *("len(V)", "V[0]", "V[-1]", "list(V)[0]", "[q for q in V][0]", "next(iter(V), None)", "V[1:]"),
        *("1 in V", "bool(V)", "type(V[0]).__name__", "V[0] is None", "sum(1 for q in V)", "V.copy()"),
        *("[*V][0]", "sorted(V, key=str)[0]", "V[:1] == [1]", "V.index(1)", "V.count(1)", "V[1]"),
        *("(lambda *q: len(q))(*V)", "[type(q).__name__ for q in V]", "V.pop()", "list(reversed(V))[0]"),
    ),
    "dict": (
        *("len(V)", "list(V)[0]", "list(V.values())[0]", "V.get('a')", "'a' in V", "list(V)[-1]", "V['z']"),
        *("next(iter(V), None)", "bool(V)", "[k for k in V][0]", "V.items()[0]", "dict(V)", "V.popitem()"),
        *("[type(q).__name__ for q in V.values()]", "V.copy()", "V.get('b', 0)", "sorted(V, key=str)"),
        *("(lambda **q: len(q))(**V)", "{**V}", "V.pop('a', None)", "1 in V", "V.setdefault('a', 7)"),
    ),
    "set": (
        *("len(V)", "list(V)[0]", "0 in V", "sorted(V, key=str)[0]", "bool(V)", "next(iter(V), None)"),
        *("V.pop()", "V == {1, 2}", "V <= {1, 2}", "[q for q in V]", "V.copy()", "1 in V", "V | {5}"),
    ),
    "iter": (
        *("next(V, None)", "len(list(V))", "list(V)", "sum(1 for q in V)", "bool(V)", "[*V]", "0 in V"),
        *("next(V)", "next(iter(V), None)", "[q for q in V][0]", "len([q for q in V])", "any(V)"),
        *("(lambda *q: len(q))(*V)", "len([0 for q in V])", "next(zip(V, 'a'), None)", "max(V, default=0)"),
        *("next((0 for q in V), 1)", "str(V)", "type(V).__name__", "list(map(bool, V))", "tuple(V)"),
    ),
    "tuple": (
        *("len(V)", "V[0]", "V[-1]", "list(V)[0]", "bool(V)", "1 in V", "V[1:]", "type(V[0]).__name__"),
        "V[0] == 1",
    ),
    "str": ("len(V)", "V[0]", "V == 'a'", "bool(V)", "'a' in V", "V.upper()"),
    "record": (
        *("V.name", "V.count", "V.tags", "len(V.tags)", "type(V.name).__name__", "V.model_dump()"),
        *("V == Item(name='a')", "V.model_dump()['count']", "isinstance(V.count, int)", "str(V)"),
        *("list(V.model_dump())", "V.model_copy().name", "isinstance(V, Item)", "V.tags[0]"),
    ),
    "box": (
        *("V.x", "V.y", "V.z", "V.w", "type(V.x).__name__", "isinstance(V.x, Item)", "V.x is None"),
        *("isinstance(V.x, (list, str))", "len(V.model_dump(exclude_none=True))", "V.model_dump_json()"),
        *("list(V.model_dump(exclude_none=True))", "V == Box()", "V.x == 1"),
    ),
    "error": (
        *("str(V)", "repr(V)", "V.args", "type(V).__name__", "isinstance(V, KeyError)", "len(V.args)"),
        *("V.args[0]", "type(V) is KeyError", "f'{V}'", "bool(V)", "isinstance(V, (OwnError, LookupError))"),
    ),
    "fn": ("V(0)", "V(1)", "callable(V)", "type(V).__name__", "list(map(V, [0, 1]))", "V is str"),
    "fn0": ("V()", "V()", "callable(V)", "[V() for q in range(2)]", "len(V())"),
    "fn2": ("V(0, 1)", "V([], [1])", "callable(V)"),
    "match": (
        *("V is None", "bool(V)", "V.group()", "V.groups()", "V.start()", "V.span(0)", "V.groupdict()"),
        *("len(V.groups())", "V.group(1)", "V['a']", "list(V.groupdict())"),
    ),
    "pattern": ("V.pattern", "V.findall('aba')", "V.search('ab') is None", "V.sub('q', 'abc')"),
    "counter": (
        *("len(V)", "V['a']", "V.most_common(1)", "list(V)", "V['z']", "list(V.values())", "'a' in V"),
        "V.most_common()[0][0]",
    ),
    "default": ("len(V)", "V['z']", "list(V)", "V['a']", "'z' in V", "list(V.values())", "V.get('z')"),
    "type": ("isinstance(1, V)", "V is int", "V == str", "V(1)", "str(V)"),
    "bytes": ("len(V)", "V[0]", "list(V)", "V == b'ab'"),
    "range": ("len(V)", "V[0]", "list(V)", "3 in V", "V == range(4)"),
}  # fmt: skip
# The probes for all other kinds.
PLAIN = ("type(V).__name__", "V is None", "V == 1", "bool(V)", "str(V)")

# -- what is covered

_KIND_OF = {"Pattern": "pattern", "Match": "match", "Exception": "error", "BaseModel": "record"}
_KIND_OF |= {"ModelMetaclass": "type"}
_SAME_METHODS = {"bool": "int"}
_ALIASES = {"clock": "time"}
_FROM = {
    **dict.fromkeys(("date", "datetime", "time", "timedelta", "timezone", "UTC"), "datetime"),
    **dict.fromkeys(("BaseModel", "Field", "ValidationError"), "pydantic"),
    **dict.fromkeys(("Literal", "Optional", "Any"), "typing"),
}
# Types of exceptions differ only in their names, and only annotations read markers.
_ALIKE = ErrorType, Marker


def kind_of(type_: type) -> str:
    """The kind of hole for values of this type."""
    return _KIND_OF.get(type_.__name__, type_.__name__)


def all_templates() -> tuple[Template, ...]:
    """Every template."""
    return *EXPRESSIONS, *STATEMENTS, *SHARES


@cache
def _trees() -> tuple[ast.Module, ...]:
    texts = [HOLE.sub(_identifier, template.text) for template in all_templates()]
    return tuple(ast.parse(text) for text in (*texts, *NEEDS.values()))


def _identifier(hole: re.Match[str]) -> str:
    return "1:" if hole[1] == "slice" else f"hole_{hole[1]}"


def covered() -> set[tuple[str, ...]]:
    """The operations in templates: `("name", n)`, `("module", m, n)`, `("method", kind, n)`."""
    found: set[tuple[str, ...]] = set()
    for tree in _trees():
        for node in ast.walk(tree):
            found |= _used(node)
    return found


def _used(node: ast.AST) -> set[tuple[str, ...]]:
    match node:
        case ast.Attribute(value=ast.Name(id=owner), attr=name) if owner.startswith("hole_"):
            kind = owner.removeprefix("hole_")
            kinds = [*KINDS.get(kind, (kind,)), *(k for k, v in _SAME_METHODS.items() if v == kind)]
            return {("method", one, name) for one in kinds}
        case ast.Attribute(value=ast.Name(id=owner), attr=name):
            return {("module", _ALIASES.get(owner, owner), name), ("method", owner, name)}
        case ast.Name(id=name) if name in _FROM:
            return {("module", _FROM[name], name)}
        case ast.Name(id=name):
            return {("name", name)}
        case _:
            return set()


def needed(
    builtins: Mapping[str, Any] = BUILTINS,
    modules: Mapping[str, Mapping[str, Any]] = MODULES,
    methods: Mapping[type, Mapping[str, Any]] = METHODS,
) -> set[tuple[str, ...]]:
    """The operations in the interpreter's tables, in the same form."""
    names = {("name", name) for name, one in builtins.items() if not isinstance(one, _ALIKE)}
    members = {
        ("module", module, name)
        for module, table in modules.items()
        for name, one in table.items()
        if callable(getattr(one, "call", None)) or isinstance(one, TypeValue)
    }
    of_types = {
        ("method", kind_of(type_), name) for type_, table in methods.items() for name in table
    }
    return names | members | of_types


def fields_needed() -> set[tuple[str, ...]]:
    """Fields of Python's own values that programs can read."""
    found: set[tuple[str, ...]] = set()
    for type_, reader in ATTRIBUTES.items():
        example = _EXAMPLES.get(type_)
        for name in dir(type_) if example is not None else ():
            if reader(example, name) is not MISSING:
                found.add(("method", kind_of(type_), name))
    return found


def _examples() -> dict[type, object]:
    import datetime as dt  # noqa: PLC0415 - the name belongs to the templates here

    values = dt.date(2024, 1, 1), dt.datetime(2024, 1, 1), dt.time(1), dt.timedelta(1)  # noqa: DTZ001
    return {type(value): value for value in values}


_EXAMPLES = _examples()


def unnamed() -> set[str]:
    """Types that have attributes in the interpreter but no kind of hole."""
    kinds = {*LITERALS, "module", "timezone", "type"}
    types = {*METHODS, *ATTRIBUTES}
    return {type_name(type_) for type_ in types if kind_of(type_) not in kinds}
