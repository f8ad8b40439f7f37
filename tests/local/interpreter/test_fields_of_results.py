"""A value that a program writes into a result with labels of fields keeps its own labels.

Every way to write a secret value into such a result, beside every way to read it there.
"""

import itertools

import pytest

from langchain_sequrity.labels import FieldLabels, Labels
from langchain_sequrity.local.interpreter import Labeled, ProgramFinished, Run, parse

FREE, HELD, OTHER = (Labels(tags=frozenset({name})) for name in ("free", "held", "other"))
SECRET = Labels(tags=frozenset({"secret"}))
RESULT = FieldLabels.combined(HELD, {"own": FREE, "part/own": FREE, "list": FREE})
OF_ANOTHER_TOOL = FieldLabels.combined(SECRET, {"own": OTHER})
SECRETS = {
    "plain": Labeled({"own": "HUSH", "part": {"own": "HUSH"}, "list": ["HUSH"]}, SECRET),
    "result": Labeled({"own": "x", "part": {"own": "HUSH"}, "list": ["HUSH"]}, OF_ANOTHER_TOOL),
}
WRITES = [
    "r[0] = d", "r[-1] = d", "r.append(d)", "r.insert(0, d)", "r.extend([d])", "r += [d]",
    "r[:1] = [d]", "r[0], q = d, 1", "for r[0] in [d]:\n    pass", "[r.append(v) for v in [d]]",
    "(lambda v: r.append(v))(d)", "def f(v):\n    v[0] = d\nf(r)", "e = r\ne[0] = d",
    "r[0]['own'] = d", "r[0]['part'] = d", "r[0]['new'] = d", "r[0]['list'] = [d]",
    "r[0].update(own=d)", "r[0].update({'part': d})", "r[0].setdefault('new', d)", "r[0] |= {'own': d}",
    "r[0]['part']['own'] = d", "r[0]['list'].append(d)", "r[0]['part'].update(d)", "r[0].update(d)",
    "e = r[0]\ne['own'] = d", "for e in r:\n    e['part'] = d", "r[0]['own'] = {'own': d}",
    "r.append({**r[0], 'own': d})", "r.append(r[0] | {'part': d})", "r[0]['list'] += [d]",
    "r = [d, *r]", "r = r + [d]", "r = [d] + r[1:]", "r = [r[0], d]", "r = {'own': d}\nr = [r, *[r]]",
]  # fmt: skip
PLACES = [
    f"{row}{part}"
    for row in ("r[0]", "r[-1]", "max(r, key=lambda e: 0)", "sorted(r, key=lambda e: 0)[-1]")
    for part in ("", "['own']", "['part']", "['new']", "['list'][0]", "['list'][-1]",
                 "['part']['own']", "['own']['own']")
]  # fmt: skip
READS = [
    "{}['own']", "{}.get('own')", "{}['part']['own']", "{}['list'][0]", "{}.get('list')[-1]",
    "{}['part'].get('own')", "[v for v in [{}]][0]['part']['own']", "(lambda e: e['list'][0])({})",
]  # fmt: skip


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("write", WRITES)
def test_a_secret_in_a_result_with_labels_of_fields_stays_secret(write: str, secret: str) -> None:
    row = {"own": "a", "say": "b", "part": {"own": "c", "say": "d"}, "list": ["e"]}
    variables = {"r": Labeled([row, row], RESULT), "d": SECRETS[secret]}
    reads = [f"x = {read.format(place)}\nx" for place, read in itertools.product(PLACES, READS)]
    reads += [
        f"for e in r:\n    x = {read.format('e')}\n    if x == 'HUSH':\n        y = x\ny"
        for read in READS
    ]
    found = []
    for read in reads:
        step = Run(parse(f"{write}\n{read}"), variables=variables).advance()
        if isinstance(step, ProgramFinished) and step.value.value == "HUSH":
            found.append(read)
            assert "secret" in step.value.labels.tags, read
    assert found
