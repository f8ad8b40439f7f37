"""Single-LLM or dual-LLM: which architecture answers a request (`agent_arch` in `X-Features`).

`session_headers` and `configuration` read the headers; here the request goes to `single_llm` or to
`dual_llm`. The endpoint type `lang-graph` is always dual-LLM.
"""

from langchain_sequrity.local.dual_llm.turn import PROGRAM, VARIABLES, DualAnswer
from langchain_sequrity.local.refusals import refuse
from langchain_sequrity.local.services import TurnInputs
from langchain_sequrity.local.single_llm import SingleAnswer

ChatAnswer = SingleAnswer | DualAnswer


def answer_for(inputs: TurnInputs, *, failed: str) -> ChatAnswer:
    """Answer a request with the architecture that its session's headers select.

    Args:
        inputs: The request and what it is answered with.
        failed: Finish reason of a dual-LLM turn that failed.

    Returns:
        The answer, which starts when its chunks are read.

    Raises:
        StatusError: If the architecture refuses the request.
    """
    endpoint_type, options = inputs.endpoint_type, inputs.request.options
    # Other endpoint types do not run or check programs. To ignore one silently would be unsafe.
    if endpoint_type != "lang-graph" and any(
        options.get(key) is not None for key in (PROGRAM, VARIABLES)
    ):
        refuse(
            400,
            f"`{PROGRAM}` and `{VARIABLES}` are for the endpoint type `lang-graph`; this is "
            f"`{endpoint_type}`.",
        )
    if inputs.configuration.dual_llm:
        return DualAnswer(inputs, failed=failed)
    return SingleAnswer(inputs)
