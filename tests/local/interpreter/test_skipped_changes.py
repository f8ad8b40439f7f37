"""A change that a skipped part of an expression would have made reveals the condition (M2)."""

import itertools
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest

from langchain_sequrity.local.interpreter import Labeled, ProgramFinished
from langchain_sequrity.local.interpreter.calls import METHODS
from langchain_sequrity.local.interpreter.values import DictValue, ListValue, SetValue
from tests.local.interpreter.running import SECRET, finish

IMPORT = "import collections\n"
RECEIVERS: dict[type, tuple[str, ...]] = {
    ListValue: ("[3, 1, 2]",),
    DictValue: (
        "{'a': 1, 'b': 2}", "collections.Counter('aab')", "collections.OrderedDict(a=1, b=2)",
        "collections.defaultdict(list, {'a': [1], 'b': [2]})",
    ),
    SetValue: ("{1, 2}",),
}  # fmt: skip
NAMES: dict[type, str] = {ListValue: "list", DictValue: "dict", SetValue: "set"}
_VALUES = ("'a'", "'z'", "1", "{1: 2}")
ARGUMENTS = ("", *_VALUES, *map(", ".join, itertools.product(_VALUES, repeat=2)))
"""For each method that can change its receiver, some of these arguments make it do so."""
SKIPPED = (
    "yes and x.{call}",
    "x.{call} if yes else 0",
    "0 if not yes else [x.{call}]",
    "[x.{call} for q in [1] if yes]",
    "(lambda: yes and x.{call})()",
    "yes and (x.{name})({arguments})",
    "yes and {kind}.{name}(x{comma}{arguments})",
    "def change():\n    x.{call}\nyes and change()",
    "def change(q):\n    q.{call}\nyes and change(x)",
    "yes and (lambda q: q.{call})(x)",
)


TRY = """\
try:
    x = {receiver}
    x.{name}({arguments})
    if repr(x) != repr({receiver}):
        found = {arguments!r}
except Exception:
    pass
"""


def changing_arguments(receiver: str, name: str) -> str | None:
    """Arguments with which a method changes its receiver, if there are any."""
    tries = [TRY.format(receiver=receiver, name=name, arguments=one) for one in ARGUMENTS]
    step = finish(f"{IMPORT}found = None\n{''.join(tries)}found")
    assert isinstance(step, ProgramFinished), step
    found: str | None = step.value.value
    return found


@cache
def changing() -> Sequence[tuple[type, str, str, str]]:
    """Type, receiver, method and arguments of calls that change their receiver."""
    calls = (
        (kind, receiver, name)
        for kind, receivers in RECEIVERS.items()
        for receiver, name in itertools.product(receivers, METHODS[kind])
    )
    return [
        (kind, receiver, name, arguments)
        for kind, receiver, name in calls
        if (arguments := changing_arguments(receiver, name)) is not None
    ]


def labelled(source: str, *, yes: bool) -> bool:
    """Whether the variable `x` has the label of the condition at the end."""
    step = finish(f"{IMPORT}{source}\nx", variables={"yes": Labeled(yes, SECRET)})
    assert isinstance(step, ProgramFinished), step
    return step.value.labels.tags >= SECRET.tags


@pytest.mark.parametrize("form", SKIPPED)
def test_a_container_has_the_label_of_a_condition_that_decides_whether_it_is_changed(
    form: str,
) -> None:
    unlabelled: list[tuple[str, bool]] = []
    for kind, receiver, name, arguments in changing():
        part = form.format(
            call=f"{name}({arguments})", name=name, arguments=arguments, kind=NAMES[kind],
            comma=", " if arguments else "",
        )  # fmt: skip
        source = f"x = {receiver}\n{part}"
        unlabelled += [(part, yes) for yes in (False, True) if not labelled(source, yes=yes)]
    assert unlabelled == []


def test_a_container_that_a_skipped_part_only_reads_has_no_label_of_the_condition() -> None:
    for kind, receivers in RECEIVERS.items():
        for name in METHODS[kind].keys() - {call[2] for call in changing()}:
            assert not labelled(f"x = {receivers[0]}\nyes and x.{name}()", yes=False), name


def test_every_method_that_changes_its_receiver_in_python_is_found() -> None:
    def of_python(*examples: Any) -> set[str]:
        """Names of the methods that change the receiver for some arguments."""
        names = set()
        for example, arguments in itertools.product(examples, ARGUMENTS):
            for name in (one for one in dir(example) if not one.startswith("_")):
                receiver = example.copy()
                try:
                    eval(f"receiver.{name}({arguments})")  # noqa: S307 - the table's own text
                except Exception:  # noqa: BLE001, S112 - not for these arguments
                    continue
                if repr(receiver) != repr(example):
                    names.add(name)
        return names

    python = {
        ListValue: of_python([3, 1, 2], deque([3, 1, 2])),
        DictValue: of_python(
            {"a": 1, "b": 2}, Counter("aab"), OrderedDict(a=1, b=2),
            defaultdict(list, {"a": [1], "b": [2]}),
        ),
        SetValue: of_python({1, 2}),
    }  # fmt: skip
    for kind, names in python.items():
        assert {call[2] for call in changing() if call[0] is kind} == names & METHODS[kind].keys()
    assert "setdefault" in python[DictValue] & METHODS[DictValue].keys()


def test_values_of_all_other_types_do_not_change() -> None:
    """A type with methods that is not in `RECEIVERS` has no state that a method could change."""
    unchanging = {"str", "bytes", "int", "bool", "float", "tuple", "date", "time", "datetime",
                  "timedelta", "timezone", "Pattern", "Match", "BaseModel"}  # fmt: skip
    assert {kind.__name__ for kind in METHODS.keys() - RECEIVERS.keys()} == unchanging
