"""`invoke` with a short prompt: the cost of one call."""

from functools import partial

from benchmarks.formats import FORMATS, Format
from benchmarks.measure import Effort, cpu, interleaved
from benchmarks.peers import HTTPX, PROMPT, BareHttpx, chat_models, prompt_body
from benchmarks.report import Row, compare


def measure(base_url: str, effort: Effort) -> list[Row]:
    return [_row(wire_format, base_url, effort) for wire_format in FORMATS]


def _row(wire_format: Format, base_url: str, effort: Effort) -> Row:
    models = chat_models(wire_format, base_url)
    work = {name: cpu(partial(model.invoke, PROMPT), effort) for name, model in models.items()}
    bare = BareHttpx(wire_format, base_url)
    work[HTTPX] = cpu(partial(bare.post, prompt_body(wire_format)), effort)
    floor, rival = wire_format.limits.invoke
    samples = interleaved(work, effort)
    return compare(f"{wire_format.title}invoke", samples, floor=floor, rival=rival)
