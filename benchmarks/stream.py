"""`stream`: the cost of each chunk, including its share of the call."""

from collections import deque
from collections.abc import Callable, Iterable
from functools import partial

from benchmarks.formats import FORMATS, Format
from benchmarks.measure import Effort, cpu, interleaved
from benchmarks.peers import HTTPX, PROMPT, BareHttpx, chat_models, prompt_body
from benchmarks.replies import CHUNKS
from benchmarks.report import Row, compare


def measure(base_url: str, effort: Effort) -> list[Row]:
    return [_row(wire_format, base_url, effort) for wire_format in FORMATS]


def _row(wire_format: Format, base_url: str, effort: Effort) -> Row:
    models = chat_models(wire_format, base_url)
    work = {
        name: _per_chunk(partial(model.stream, PROMPT), effort) for name, model in models.items()
    }
    bare = BareHttpx(wire_format, base_url)
    work[HTTPX] = _per_chunk(partial(bare.stream, prompt_body(wire_format)), effort)
    floor, rival = wire_format.limits.chunk
    samples = interleaved(work, effort)
    return compare(f"{wire_format.title}stream, per chunk", samples, floor=floor, rival=rival)


def _per_chunk(stream: Callable[[], Iterable[object]], effort: Effort) -> Callable[[], float]:
    per_stream = cpu(lambda: deque(stream(), maxlen=0), effort)
    return lambda: per_stream() / CHUNKS
