"""`invoke` with a short prompt: what one call costs."""

from functools import partial

from benchmarks.measure import Effort, cpu, interleaved
from benchmarks.peers import HTTPX, PROMPT, BareHttpx, chat_models, prompt_body
from benchmarks.report import Row, compare


def measure(base_url: str, effort: Effort) -> list[Row]:
    bare = BareHttpx(base_url)
    work = {
        name: cpu(partial(model.invoke, PROMPT), effort)
        for name, model in chat_models(base_url).items()
    }
    work[HTTPX] = cpu(partial(bare.post, prompt_body()), effort)
    return [compare("invoke", interleaved(work, effort), floor=1.4, openai=0.5)]
