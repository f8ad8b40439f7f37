"""What all conversations of a process share: a local server, an event loop, and a folder."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Self

from langchain_core.messages import AIMessageChunk, message_chunk_to_message

from langchain_sequrity import ChatSequrity, SequrityMessages
from langchain_sequrity.local import LocalServer
from langchain_sequrity.wire.exchange import ChatRequest
from tests.local.stores import remove
from tests.session_oracle.cases import Case

if TYPE_CHECKING:
    from tests.session_oracle.script import Script

_FORMATS: Mapping[str, tuple[Any, dict[str, Any]]] = {
    "chat": (ChatSequrity, {}),
    "messages": (SequrityMessages, {}),
    "responses": (ChatSequrity, {"use_responses_api": True}),
    "previous id": (ChatSequrity, {"use_responses_api": True, "use_previous_response_id": True}),
}
ACCEPTS_LOSS = {"on_session_lost": "restart", "on_session_expired": "restart"}
TITLE = "Write a title."
"""A request to the model without tools, whose session is none of the conversation."""
_ARCHITECTURES = {"single": "single-llm"}


class Stage:
    """Plays one conversation at a time.

    Args:
        base_url: A server in another process. Without it a server is started.
        folder: The folder of another process; without it a new one.

    Attributes:
        script: What the models behind the server do now.
    """

    def __init__(self, base_url: str = "", folder: str = "") -> None:
        self.script: Script
        self._server: LocalServer | None = None
        self._loop = asyncio.Runner()
        self._new_folder = None if folder else TemporaryDirectory()
        self._folder = Path(self._new_folder.name if self._new_folder else folder)
        self.base_url = base_url
        if not base_url:
            rules = [
                {"when": {"role": "planner"}, "answer": self._plan},
                {"when": {"role": "chat"}, "answer": self._answer},
            ]
            self._server = LocalServer(script=rules, isolated_programs=False).start()
            self.base_url = self._server.base_url

    def __enter__(self) -> Self:
        """Return the stage."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the server."""
        self.close()

    def close(self) -> None:
        """Stop the server and the event loop."""
        if self._server is not None:
            self._server.stop()
        self._loop.close()
        if self._new_folder is not None:
            self._new_folder.cleanup()

    def _plan(self, request: ChatRequest) -> dict[str, Any]:
        if TITLE in str(request.messages[-1].content):
            return {"program": "final_return_value = 'A title'"}
        return {"program": self.script.next_program(request)}

    def _answer(self, request: ChatRequest) -> dict[str, Any]:
        if request.messages[-1].content == TITLE:
            return {"text": "A title"}
        return self.script.answer(request)

    def forget_sessions(self) -> None:
        """Make the service forget all sessions."""
        if self._server is not None:
            for session in list(self._server.sessions):  # type: ignore[call-overload]
                remove(self._server.sessions, session.id)

    def empty_folder(self) -> None:
        """Remove the files of the conversation before."""
        for path in self._folder.iterdir():
            path.unlink()

    def file(self, name: str) -> Path:
        """A file in the folder."""
        return self._folder / name

    def model(self, case: Case, api_format: str, *, accepts_loss: bool) -> Any:
        """A model of the case in an API format."""
        model, arguments = _FORMATS[api_format]
        return model(
            "any/model",
            base_url=self.base_url,
            policy=case.policy,
            features={"agent_arch": _ARCHITECTURES.get(case.way, "dual-llm")},
            on_denied="raise" if case.way == "executor" else case.on_denied,
            **arguments,
            **(ACCEPTS_LOSS if accepts_loss else {}),
        )

    def run(self, runnable: Any, value: Any, config: Any, style: str) -> Any:
        """Call a model or a graph in one of the styles.

        Returns:
            The message of a model, or the state of a graph.
        """
        is_graph = hasattr(runnable, "get_state")
        options = {"stream_mode": "values"} if is_graph else {}
        match style:
            case "invoke":
                return runnable.invoke(value, config)
            case "batch":
                return runnable.batch([value], [config])[0]
            case "ainvoke":
                return self._loop.run(runnable.ainvoke(value, config))
            case "stream":
                return _last(list(runnable.stream(value, config, **options)))
        return _last(self._loop.run(_listed(runnable.astream(value, config, **options))))


async def _listed(stream: Any) -> list[Any]:
    return [chunk async for chunk in stream]


def _last(chunks: list[Any]) -> Any:
    """The last state of a graph, or the message of a model."""
    if not chunks or not isinstance(chunks[0], AIMessageChunk):
        return chunks[-1] if chunks else None
    total = chunks[0]
    for chunk in chunks[1:]:
        total += chunk
    return message_chunk_to_message(total)
