"""What a run of the demo may be told, apart from `run` because that takes a second to import."""

from dataclasses import dataclass
from pathlib import Path

from langchain_sequrity.wire.routes import OpenAIProvider

DEFAULT_QUESTION = (
    "Which Python packages are installed here, which are the largest, under which licences are "
    "they, and which ones do the others depend on most?"
)
LIVE_MODEL = "openai/gpt-5-mini"
OFFLINE_MODEL = "offline/brain"


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What a run may be told.

    Attributes:
        question: What the agent is asked.
        folder: Where the report goes.
        live: Whether the hosted service answers instead of a server on this machine.
        outside: Where the report is to be mailed first: outside of the company.
        inside: Where it is to be mailed then.
        model: Name of the model, or `None` for a default.
        provider: Provider segment of the URL, or `None` for the service's default.
    """

    question: str = DEFAULT_QUESTION
    folder: Path = Path("demo-output")
    live: bool = False
    outside: str = "press@elsewhere.example"
    inside: str = "audit@example.com"
    model: str | None = None
    provider: OpenAIProvider | None = None
