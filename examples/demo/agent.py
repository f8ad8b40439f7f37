"""The agent: a planner writes a program, a reader reads data, a policy checks each call."""

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from examples.demo.story import Story
from examples.demo.tools import Desk
from langchain_sequrity import ChatSequrity, dual_llm_result
from langchain_sequrity.errors import PolicyDenied, TurnFailed

REQUEST = (
    "Which installed packages are the largest? Write a report, and mail it to the contact that "
    "suppliers.txt names."
)
INSTEAD = "Then mail the report to bo@partner.example."
_MOST_STEPS = 30


class Agent:
    """A conversation with a model and its tools.

    Args:
        model: A dual-LLM model under a policy.
        desk: The tools.
    """

    def __init__(self, model: ChatSequrity, desk: Desk) -> None:
        self._tools = {tool.name: tool for tool in desk.tools()}
        self._model = model.bind_tools(list(self._tools.values()))
        self._messages: list[BaseMessage] = []

    def ask(self, words: str) -> AIMessage:
        """Ask the model, and run the tools that it calls, until it answers.

        Raises:
            PolicyDenied: If the policy denies a call. The conversation can continue.
        """
        self._messages.append(HumanMessage(words))
        for _ in range(_MOST_STEPS):
            try:
                answer = self._model.invoke(self._messages)
            except PolicyDenied as denied:
                self._messages += [denied.message] if denied.message else []
                raise
            self._messages.append(answer)
            if not answer.tool_calls:
                return answer
            for call in answer.tool_calls:
                self._messages.append(self._tools[call["name"]].invoke(call))
        msg = f"The agent took {_MOST_STEPS} steps without an answer. Try another `--model`."
        raise TurnFailed(msg)


def run_agent(model: ChatSequrity, desk: Desk, story: Story) -> None:
    """Let the agent process a request. If a call is denied, the user gives another instruction.

    Raises:
        SequrityError: If the service or the turn failed.
    """
    agent = Agent(model, desk)
    for words in (REQUEST, INSTEAD):
        story.tell("The user asks", words)
        try:
            answer = agent.ask(words)
        except PolicyDenied as denied:
            story.stopped(desk.user, denied)
            story.turn(denied.program, denied.checks)
        else:
            _show(answer, story)
            return


def _show(answer: AIMessage, story: Story) -> None:
    story.tell("The agent", f"answers: {answer.text}")
    if verdict := dual_llm_result(answer):
        for check in verdict.policy_check_history:
            match check:
                case {"tool": "send_mail", "arguments": labels}:
                    story.allowed(labels)
        story.turn(verdict.program, verdict.policy_check_history)
