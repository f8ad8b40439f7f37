"""`stream`: what each chunk costs, the call itself spread over them."""

from collections import deque
from collections.abc import Callable, Iterable

from benchmarks.measure import Effort, cpu, interleaved
from benchmarks.peers import HTTPX, PROMPT, BareHttpx, chat_models, prompt_body
from benchmarks.report import Row, compare
from benchmarks.server import CHUNKS


def measure(base_url: str, effort: Effort) -> list[Row]:
    bare = BareHttpx(base_url)
    work = {
        name: _per_chunk(lambda model=model: model.stream(PROMPT), effort)  # type: ignore[misc]
        for name, model in chat_models(base_url).items()
    }
    work[HTTPX] = _per_chunk(lambda: bare.stream(prompt_body()), effort)
    return [compare("stream, per chunk", interleaved(work, effort), floor=1.3, openai=0.3)]


def _per_chunk(stream: Callable[[], Iterable[object]], effort: Effort) -> Callable[[], float]:
    per_stream = cpu(lambda: deque(stream(), maxlen=0), effort)
    return lambda: per_stream() / CHUNKS
