"""The constructor: what a model costs before its first call."""

from functools import partial

from benchmarks.measure import Effort, cpu, interleaved, ratio
from benchmarks.peers import CONSTRUCTORS, KEY, MODEL, OPENAI
from benchmarks.report import Goal, Row, compare
from langchain_sequrity import ChatSequrity

_WITH_POLICY = "with policy"
_POLICY = (
    """
// Mail may go to colleagues, and only with what everybody may read.
tool "send_mail" {
    must deny when to matches r".*@(?!example\\.com)";
    should allow when subject is subset of {"report", "minutes"};
}
"""
    * 5
)


def measure(base_url: str, effort: Effort) -> list[Row]:
    work = {name: cpu(partial(make, base_url), effort) for name, make in CONSTRUCTORS.items()}
    work[_WITH_POLICY] = cpu(
        lambda: ChatSequrity(MODEL, api_key=KEY, base_url=base_url, policy=_POLICY), effort
    )
    samples = interleaved(work, effort)
    policy = ratio(samples, _WITH_POLICY, [OPENAI])
    goal = Goal("/ ChatOpenAI with a policy", policy, limit=1.0)
    return [compare("constructor", samples, openai=1.0, more=[goal])]
