"""Random programs over every operation lose no label.

The full runs are `python -m tests.local.interpreter.taint_oracle --count 20000`, with and without
`--strict`.
"""

from collections.abc import Sequence

import pytest

from langchain_sequrity.local.interpreter import parse
from langchain_sequrity.local.interpreter.builtins import BUILTINS
from langchain_sequrity.local.interpreter.calls import METHODS
from langchain_sequrity.local.interpreter.modules import MODULES
from tests.local.interpreter.differential import missing_nodes, node_kinds
from tests.local.interpreter.operations import (
    SECRETS,
    all_templates,
    covered,
    fields_needed,
    needed,
    unnamed,
)
from tests.local.interpreter.taint_oracle import (
    BRANCHES,
    Examined,
    Step,
    Trial,
    Writer,
    branching,
    examine,
    losses,
    run_both,
    smallest,
    trials,
)

_COUNT = 500


@pytest.mark.long
def test_a_variable_that_differs_between_two_runs_has_the_tag_of_the_secret() -> None:
    found = [examine(trial) for seed in range(_COUNT) for trial in trials(seed)]

    assert _lost(found) == []
    # Of the other pairs, a limit ended a run, or nothing depends on the secret.
    assert sum(map(_has_flow, found)) > len(found) / 2


@pytest.mark.long
def test_in_strict_mode_assignments_under_branches_have_the_tag_of_the_secret() -> None:
    found = [examine(trial) for seed in range(_COUNT) for trial in branching(seed)]

    assert _lost(found) == []
    assert sum(map(_has_flow, found)) > len(found) * 0.9


def _lost(found: Sequence[Examined | None]) -> list[str]:
    return [one.losses[0].text for one in found if one is not None and one.losses]


def _has_flow(found: Examined | None) -> bool:
    """Whether a variable other than the secret differs between the two runs."""
    return found is not None and bool(set(found.differing()) - {found.trial.secret})


# Short programs with a hidden flow from a secret to `v`: each has an operation that could lose the
# tag.
HIDDEN = (
    # names and number of arguments
    ("d = {}\nd.update(**{text: 1})\nv = list(d)[0]", "text"),
    ("def f(**k):\n    global v\n    v = list(k)[0]\nf(**{text: 1})", "text"),
    ("def f(*a):\n    global v\n    v = len(a)\nf(*text)", "text"),
    ("def f(**k):\n    global v\n    v = len(k)\nf(**table)", "table"),
    ("def f(a=0, b=0):\n    global v\n    v = b\nf(*nums[1:])", "nums"),
    ("d = {}\nd.update(**table)\nv = len(d)", "table"),
    # positions of iterators
    ("it = iter(range(9))\nnum in it\nv = next(it)", "num"),
    ("it = iter(range(9))\nnum not in it\nv = list(it)", "num"),
    ("it = iter(range(9))\nlist(zip(nums, it))\nv = next(it)", "nums"),
    ("it = iter(range(9))\nlist(map(lambda q, h: 1, nums, it))\nv = next(it)", "nums"),
    ("it = iter(range(9))\nany(q == num for q in it)\nv = next(it)", "num"),
    ("it = iter(range(9))\nall(map(lambda q: q != num, it))\nv = next(it)", "num"),
    ("it = iter(range(9))\nnext(filter(lambda q: q > num, it))\nv = next(it)", "num"),
    ("it = iter(range(9))\nnext(q for q in it if q > num)\nv = next(it)", "num"),
    ("it = iter(range(9))\nnext(itertools.islice(it, num, None))\nv = next(it)", "num"),
    ("it = iter(range(9))\n[q for q, h in zip(it, nums)]\nv = next(it)", "nums"),
    ("it = [iter(range(9))]\nnum in it[0]\nv = next(it[0])", "num"),
    ("it = iter(range(9))\nsame = it\nnum in it\nv = next(same)", "num"),
    ("it = iter(range(9))\ndict(zip(text, it))\nv = list(it)", "text"),
    ("it = itertools.count()\nnum in itertools.islice(it, 9)\nv = next(it)", "num"),
    # containers that change under an iterator
    ("a = [0]\nit = iter(a)\na *= num\nv = len(list(it))", "num"),
    ("a = [0, 1, 2, 3]\nit = iter(a)\na.pop(num - 1)\nv = list(it)[1]", "num"),
    ("a = [0, 1, 2]\nit = (q for q in a if q != 9)\na.insert(num - 2, 7)\nv = next(it)", "num"),
    ("a = [0, 1, 2]\nit = map(str, a)\na.sort(key=lambda q: q != num)\nv = next(it)", "num"),
    ("a = [0, 1, 2]\nit = zip(a, a)\ndel a[: num - 2]\nv = next(it)", "num"),
    ("a = [0]\nit = enumerate(a)\na[:] = range(num)\nv = len(list(it))", "num"),
    ("a = []\nit = zip(a)\na += nums\nv = len(list(it))", "nums"),
    ("a = [0, 1, 2]\nit = itertools.islice(a, 9)\na.remove(num - 1)\nv = list(it)[1]", "num"),
    ("a = [0, 1, 2]\nfor v in a:\n    del a[: num - 1]", "num"),
    # iterables that are read later
    ("v = len(list(itertools.chain(q for q in range(9) if q < num)))", "num"),
    ("v = len(list(itertools.islice((q for q in range(9) if q < num), 9)))", "num"),
    ("v = len(list(itertools.product((q for q in range(9) if q < num))))", "num"),
    ("v = len(list(itertools.combinations((q for q in range(9) if q < num), 2)))", "num"),
    ("v = math.prod(q for q in range(1, 9) if q == num)", "num"),
    # keys of dicts
    ("v = len(dict((k, 1) for k in 'a' if num == 2))", "num"),
    ("v = len(dict(pairs))", "pairs"),
    ("v = len(collections.OrderedDict((k, 1) for k in 'a' if num == 2))", "num"),
    ("v = len(collections.defaultdict(int, pairs))", "pairs"),
    ("d = {}\nd.update(pairs)\nv = len(d)", "pairs"),
    ("d = {}\nd |= pairs\nv = len(d)", "pairs"),
    ("d = {'a': 1}\nd.setdefault('a' if num == 2 else 'b', 1)\nv = len(d)", "num"),
    ("d = {1: 'x'}\nd[thing] = 'y'\nv = len(d)", "thing"),
    ("d = collections.Counter()\nd[text] += 0\nv = list(d)[0]", "text"),
    # types
    ("v = isinstance(1, type(thing))", "thing"),
    ("v = isinstance(1, (list, int if flag else str))", "flag"),
    ("v = isinstance(Box(x=thing).x, str)", "thing"),
    # patterns
    ("c = Box(z=key)\nmatch {'a': 1, 'b': 2, 'z': 3}:\n    case {c.z: v}:\n        pass", "key"),
    ("match [num, 5, 1]:\n    case [2, v, _] | [_, _, v]:\n        pass", "num"),
    # labels of elements
    ("v = 2 in [0, num]", "num"),
    ("v = 2 in (0, (num, 1)[0])", "num"),
    ("v = 2 in [q for q in [0, num]]", "num"),
    ("v = [0, num] == [0, 2]", "num"),
    ("v = sorted([3, num])[0]", "num"),
    ("v = {1: 0, num: 1}[1] if 0 else len({1, num})", "num"),
)  # fmt: skip


@pytest.mark.long(sample=17)
@pytest.mark.parametrize(("source", "secret"), HIDDEN)
def test_a_hidden_flow_from_a_secret_keeps_the_tag(source: str, secret: str) -> None:
    found = [examine(trial) for trial in _pairs(source, secret)]

    assert None not in found
    assert _lost(found) == []
    assert any("v" in one.differing() for one in found if one is not None)


def _pairs(source: str, secret: str) -> list[Trial]:
    """A program of one step, with the first value of a secret and each of its other values."""
    _, (value, *others) = SECRETS[secret]
    return [Trial((Step(source),), secret, (value, other)) for other in others]


FAILING = (
    ("(lambda a, b: 1)(*nums)", "nums"),
    ("(lambda a: 1)(**table)", "table"),
    ("{'a': 1}[key]", "key"),
    ("[1, 2, 3][num]", "num"),
    ("1 // (num - 2)", "num"),
    ("raise (KeyError if flag else ValueError)('m')", "flag"),
    ("(0 if flag else []).pop", "flag"),
    ("undefined if flag else 0", "flag"),
    ("flag and undefined", "flag"),
    ("[undefined for q in range(num - 2)]", "num"),
    ("a, b = nums", "nums"),
    ("next(q for q in range(9) if q > num + 5)", "num"),
)


@pytest.mark.parametrize(("source", "secret"), FAILING)
def test_an_exception_that_a_secret_decides_has_the_tag(source: str, secret: str) -> None:
    ends = [end for trial in _pairs(source, secret) for end in run_both(trial) or ()]
    raised = [end for end in ends if "t0" in end]
    shown = {(end["t0"].value, end["s0"].value) if "t0" in end else None for end in ends}

    assert len(ends) == 2 * len(_pairs(source, secret))
    assert len(shown) > 1
    assert [end for end in raised if secret not in end["e0"].labels.tags] == []
    assert [end for end in raised if secret not in end["t0"].labels.tags] == []
    assert [end for end in raised if secret not in end["s0"].labels.tags] == []


REFUSED = (
    "class Made(Item if flag else Box):\n    pass",
    "c = int if flag else str\nclass Made(BaseModel):\n    x: c",
)


@pytest.mark.parametrize("source", REFUSED)
def test_a_class_with_a_part_that_a_secret_chose_is_refused(source: str) -> None:
    (trial,) = _pairs(source, "flag")

    for end in run_both(trial) or pytest.fail("a limit ended a run"):
        assert "cannot have labels" in end["s0"].value
        assert end["s0"].labels.tags == {"flag"}
        assert "Made" not in end


def test_every_operation_of_the_interpreter_has_a_template() -> None:
    assert needed() - covered() == set()
    assert fields_needed() - covered() == set()
    assert unnamed() == set()


def test_an_operation_without_a_template_is_found() -> None:
    some = BUILTINS["len"]
    builtins = {**BUILTINS, "fresh": some}
    modules = {**MODULES, "math": {**MODULES["math"], "fresh": some}}
    methods = {**METHODS, str: {**METHODS[str], "fresh": some}}

    assert needed(builtins, modules, methods) - covered() == {
        ("name", "fresh"), ("module", "math", "fresh"), ("method", "str", "fresh"),
    }  # fmt: skip


def test_templates_are_programs_that_use_every_node_of_the_language() -> None:
    templates = all_templates()
    sources = []
    for start in range(0, len(templates), 40):
        writer = Writer(f"templates {start}")
        for template in templates[start : start + 40]:
            writer.perform(template)
        sources.append(Trial(tuple(writer.steps), "num", (1, 2)).source())
        parse(sources[-1])

    assert missing_nodes(node_kinds(sources)) == set()


def test_every_branching_program_ends_in_both_runs() -> None:
    ended = [examine(trial) for seed in range(len(BRANCHES)) for trial in branching(seed)]

    assert None not in ended


@pytest.mark.parametrize("is_strict", [False, True])
def test_a_flow_that_gets_no_label_is_reported_as_a_loss(is_strict: bool) -> None:
    # If the branch is not taken, nothing is assigned, so nothing is labelled, in either mode.
    steps = (Step("v1 = 0\nif flag:\n    v1 = 1"),)

    found = losses(Trial(steps, "flag", (True, False), is_strict=is_strict))

    assert [(loss.variable, loss.values) for loss in found] == [("v1", (1, 0))]


def test_a_step_in_which_the_runs_take_different_paths_is_removed() -> None:
    steps = (
        Step("v1 = 0"),
        Step("if flag:\n    p1 = 1\n    v1 = 1\nelse:\n    p1 = 2"),
        Step("v2 = v1"),
    )

    found = examine(Trial(steps, "flag", (True, False)))

    assert found is not None
    assert ([step.text for step in found.trial.steps], found.losses) == (["v1 = 0", "v2 = v1"], [])


def test_a_program_that_loses_a_tag_is_shrunk_to_the_statements_that_lose_it() -> None:
    steps = (
        Step("v1 = [1, 2]"),
        Step("v2 = len(v1) + 3\nif flag:\n    v2 = 1"),
        Step("v3 = str(v2)"),
    )
    loss, *_ = losses(Trial(steps, "flag", (True, False)))

    assert [step.text for step in smallest(loss).trial.steps] == ["v2 = len\nif flag:\n    v2 = 1"]
