"""An agent that reads and sends mail."""

from pathlib import Path

from langchain.agents import create_agent
from langchain.tools import tool
from langchain_sequrity import ChatSequrity

POLICY = Path(__file__).with_name("policy.sqrt")


class Mailbox:
    """Received and sent mails."""

    def __init__(self, mails: list[str]):
        self.mails = mails
        self.sent: list[tuple[str, str]] = []

    def tools(self):
        """The tools that use this mailbox."""

        @tool
        def read_mail(number: int) -> str:
            """Read the mail of this number."""
            return self.mails[number - 1]

        @tool
        def send_mail(to: str, text: str) -> str:
            """Send a mail."""
            self.sent.append((to, text))
            return f"Sent to {to}."

        @tool
        def delete_mail(number: int) -> str:
            """Delete the mail of this number."""
            del self.mails[number - 1]
            return "Deleted."

        return [read_mail, send_mail, delete_mail]


def make_agent(mailbox: Mailbox, model: str = "openai/gpt-5-mini", *, dual_llm: bool = False):
    """Build the agent. SEQURITY_BASE_URL and SEQURITY_API_KEY give address and key of the model."""
    architecture = "dual-llm" if dual_llm else "single-llm"
    chat = ChatSequrity(model, policy=POLICY, features={"agent_arch": architecture})
    return create_agent(chat, mailbox.tools())
