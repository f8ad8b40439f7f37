"""The output of the demo: captions and texts, line by line during the run.

Everything that a model, a document or a server wrote goes through `plain`, so that it cannot act on
the terminal.
"""

import textwrap
from collections.abc import Sequence
from typing import Any

import httpx

from langchain_sequrity.display import plain
from langchain_sequrity.errors import PolicyDenied

_WIDTH = 79
_CAPTION = 15
_LONGEST = 240


class Story:
    """Prints what happens.

    Args:
        verbose: Whether requests, programs, labels and traces are printed too.
    """

    def __init__(self, *, verbose: bool = False) -> None:
        self._verbose = verbose
        self._last = ""

    def line(self, text: str = "") -> None:
        """Print a line of the demo itself."""
        print(text, flush=True)
        self._last = ""

    def tell(self, caption: str, text: str) -> None:
        """Print a caption, unless the last one was the same, and a text in lines."""
        self._wrap(caption, plain(text, limit=_LONGEST))

    def quote(self, caption: str, text: str) -> None:
        """Print lines from outside, each behind a bar."""
        for line in plain(text.strip(), limit=2 * _LONGEST, lines=True).split("\n"):
            if line.strip():
                self._wrap(caption, line, bar="| ")

    def stopped(self, caption: str, denied: PolicyDenied) -> None:
        """Print which call a rule stopped, and why."""
        self.tell(caption, f"tries to call {denied.tool}, to {denied.arguments.get('to')}")
        self.tell("The rule", " ".join(denied.rule.split()))
        self.tell("The rule", f"stops this call: {denied.reason}.")

    def allowed(self, labels: Any) -> None:
        """Print that an allowed recipient carries no label of a document."""
        match labels:
            case {"to": {"tags": []}}:
                self.tell("The rule", "allows it: the address does not come from a document.")

    def _wrap(self, caption: str, text: str, *, bar: str = "") -> None:
        lines = textwrap.wrap(
            text, _WIDTH - _CAPTION - len(bar), break_long_words=False, break_on_hyphens=False
        )
        for line in lines:
            shown = "" if caption == self._last else caption
            print(f"{shown:<{_CAPTION}}{bar}{line}", flush=True)
            self._last = caption

    # With -v

    def detail(self, caption: str, text: str) -> None:
        """Print a text with its own layout, of any width; only with `-v`."""
        if self._verbose:
            lines = plain(text.strip("\n"), limit=100_000, lines=True).split("\n")
            self.line(f"  {caption:<9}" + "\n           ".join(lines))

    def turn(self, program: str | None, checks: Sequence[Any]) -> None:
        """Print the program of a turn, each check of the policy, and the labels of arguments."""
        self.detail("program", program or "not reported")
        for check in checks:
            match check:
                case {"tool": tool, "verdict": verdict, "arguments": dict(arguments)}:
                    self.detail("check", f"{tool}: {verdict}")
                    for name, labels in arguments.items():
                        self.detail("labels", f"{name}: {labels}")

    def hooks(self) -> dict[str, Any]:
        """Event hooks of a client that print its requests and replies."""

        def request(request: httpx.Request) -> None:
            size = request.headers.get("Content-Length", "?")
            self.detail("request", f"{request.method} {request.url.path}, {size} bytes")

        def reply(reply: httpx.Response) -> None:
            session = reply.headers.get("X-Session-ID")
            self.detail("reply", f"{reply.status_code}, session {session}")

        return {"request": [request], "response": [reply]}
