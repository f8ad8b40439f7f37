"""Asking for a policy until one has no mistakes.

What a model writes is parsed and checked, and nothing else is done with it.
"""

from collections.abc import Iterator
from typing import NamedTuple

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    SystemMessage,
)
from langchain_core.messages.ai import UsageMetadata, add_usage

from langchain_sequrity.errors import PolicySyntaxError
from langchain_sequrity.local.brains import Brain, BrainContext
from langchain_sequrity.local.dual_llm.asking import unfenced, whole
from langchain_sequrity.local.policy_writing import prompts
from langchain_sequrity.local.policy_writing.sample import is_sample
from langchain_sequrity.local.refusals import refuse
from langchain_sequrity.sqrt import parse
from langchain_sequrity.sqrt.listing import has_rules
from langchain_sequrity.sqrt.tokens import MAX_CHARACTERS
from langchain_sequrity.wire.exchange import ChatRequest
from langchain_sequrity.wire.policy_generation import PolicyReply, PolicyRequest, judged

ENDPOINT_TYPE = "policy-gen"
MAX_RETRIES = 10
FAILED = "policy_generation_failed"
"""What programs may tell the error by that all attempts failed."""

# A policy may stand in some more text; whatever is longer than this is none.
_MAX_ANSWER = 2 * MAX_CHARACTERS


class _Judged(NamedTuple):
    """An answer: the policy in it, and what is wrong with it, if anything."""

    text: str
    problems: str = ""


def write_policy(request: PolicyRequest, brain: Brain) -> PolicyReply:
    """Have a policy written.

    Args:
        request: What is asked for.
        brain: Who writes it, in the role `policy`.

    Returns:
        A policy without mistakes, and the usage of all attempts.

    Raises:
        StatusError: 400 for more retries than this server makes, 422 if no attempt led to a policy,
            and what the brain raises.
    """
    if request.n_retries > MAX_RETRIES:
        refuse(
            400,
            f"This server tries again at most {MAX_RETRIES} times; got `n_retries` "
            f"{request.n_retries}.",
        )
    writer = _Writer(request, brain)
    attempts = request.n_retries + 1
    for _ in range(attempts):
        found = writer.attempt()
        if not found.problems:
            break
    else:
        times = "once" if attempts == 1 else f"{attempts} times"
        refuse(
            422,
            f"No policy came of it: `{request.model}` was asked {times}. What is wrong with the "
            f"last answer:\n{found.problems}\nReword `description`, raise `n_retries`, or use "
            "another model.",
            kind=FAILED,
        )
    return PolicyReply(found.text, writer.usage)


class _Writer:
    """The conversation with the model that writes."""

    def __init__(self, request: PolicyRequest, brain: Brain) -> None:
        self._request = request
        self._brain = brain
        self._messages: list[BaseMessage] = [
            SystemMessage(prompts.INSTRUCTIONS),
            HumanMessage(prompts.asked(request)),
        ]
        self._usage: UsageMetadata | None = None

    @property
    def usage(self) -> dict[str, int]:
        """The usage of all attempts so far, in the words of the service."""
        used = self._usage or UsageMetadata(input_tokens=0, output_tokens=0, total_tokens=0)
        return {
            "prompt_tokens": used["input_tokens"],
            "completion_tokens": used["output_tokens"],
            "total_tokens": used["total_tokens"],
        }

    def attempt(self) -> _Judged:
        """Ask once; the next attempt is told what was wrong with this one."""
        message = whole(self._pieces())
        found = self._judged(message)
        if found.problems:
            self._messages += [
                AIMessage(found.text or "(no policy)"),
                HumanMessage(prompts.again(found.problems)),
            ]
        return found

    def _pieces(self) -> Iterator[AIMessageChunk]:
        request = ChatRequest(self._request.model, list(self._messages), stream=True)
        context = BrainContext("policy", ENDPOINT_TYPE, policy=self._request)
        length = 0
        for chunk in self._brain.stream(request, context):
            if chunk.usage_metadata is not None:
                self._usage = add_usage(self._usage, chunk.usage_metadata)
            length += len(chunk.text) or 1  # a model may think without end
            yield chunk
            if length > _MAX_ANSWER:
                return

    def _judged(self, message: AIMessage) -> _Judged:
        answer = str(message.text)
        if message.additional_kwargs.get("refusal"):
            return _Judged("", "The model refused to write one.")
        if len(answer) > _MAX_ANSWER:
            problem = f"The answer has more than {_MAX_ANSWER} characters."
            return _Judged("", problem)
        # A policy can have fences in its own comments.
        text = (answer if _parses(answer) else unfenced(answer)).strip() + "\n"
        return _Judged(text, _mistakes(text, self._request))


def _parses(text: str) -> bool:
    try:
        parse(text)
    except PolicySyntaxError:
        return False
    return True


def _mistakes(text: str, request: PolicyRequest) -> str:
    """What is wrong with a policy, in words; nothing if it may go out."""
    try:
        policy = parse(text)
    except PolicySyntaxError as error:
        return str(error)
    if not has_rules(policy):
        return "The answer has no rule for any tool, so it would restrict nothing."
    if is_sample(policy):
        return (
            "The answer is the sample of the instructions, which shows the language and protects "
            "nothing that the request is about. Write rules for what the request asks."
        )
    return prompts.shown(text, judged(text, request).faults)
