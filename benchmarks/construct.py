"""The constructor: the cost of a model before its first call."""

from functools import partial

from benchmarks.formats import CHAT_COMPLETIONS, KEY, MODEL, OPENAI, UNSET
from benchmarks.measure import Effort, cpu, interleaved
from benchmarks.report import Row, compare
from langchain_sequrity import ChatSequrity

_WITH_POLICY = "with policy"
_POLICY = """
// Who may get mail, and what may be in it.
let staff = {"ada", "grace", "edsger"};

/// Mail goes to colleagues, and never with what came from outside.
tool "send_mail" {
    priority 10;
    must deny when not to.value in {str matching r"^[A-Za-z0-9._+-]+@office[.]example$"};
    must deny when body.tags overlaps {"outside", "personal"};
    should allow always;
    session after { @tags |= {"mailed"}; }
}

tool "pay_invoice" {
    must deny when @session.tags overlaps {"paid"};
    must deny when not amount.value in {int 1..5000};
    should allow always;
    session after { @tags |= {"paid"}; }
}

tool r"^read_.*" { result { @producers |= {"files"}; @consumers &= staff; } }
tool "fetch_page" -> @tags |= {"outside"};
tool "load_members" -> @tags |= {"personal"};
"""


def measure(base_url: str, effort: Effort) -> list[Row]:
    models = CHAT_COMPLETIONS.models
    work = {name: cpu(partial(make, base_url), effort) for name, make in models.items()}
    work[_WITH_POLICY] = cpu(
        lambda: ChatSequrity(
            MODEL,
            api_key=KEY,
            base_url=base_url,
            features={"agent_arch": "dual-llm"},  # in single-LLM mode arguments have no labels
            policy=_POLICY,
        ),
        effort,
    )
    samples = interleaved(work, effort)
    with_policy = {UNSET: samples.pop(_WITH_POLICY), OPENAI: samples[OPENAI]}
    return [
        compare("constructor", samples, rival=1.0),
        compare("constructor, with a policy", with_policy, rival=1.0),
    ]
