"""`invoke` with a whole reply of 200 kB: what each character of an answer costs."""

from functools import partial

from benchmarks.formats import FORMATS, Format
from benchmarks.measure import Effort, cpu, interleaved
from benchmarks.peers import HTTPX, PROMPT, BareHttpx, ConstantModel, chat_models, prompt_body
from benchmarks.replies import LONG_TEXT
from benchmarks.report import Row, compare


def measure(base_url: str, effort: Effort) -> list[Row]:
    return [_row(wire_format, f"{base_url}/long", effort) for wire_format in FORMATS]


def _row(wire_format: Format, base_url: str, effort: Effort) -> Row:
    models = chat_models(wire_format, base_url)
    bare, body = BareHttpx(wire_format, base_url), prompt_body(wire_format)
    for name, model in models.items():
        assert isinstance(model, ConstantModel) or model.invoke(PROMPT).text == LONG_TEXT, name
    assert bare.post(body) == LONG_TEXT
    work = {name: cpu(partial(model.invoke, PROMPT), effort) for name, model in models.items()}
    work[HTTPX] = cpu(partial(bare.post, body), effort)
    floor, rival = wire_format.limits.long_answer
    samples = interleaved(work, effort)
    return compare(f"{wire_format.title}long answer", samples, floor=floor, rival=rival)
