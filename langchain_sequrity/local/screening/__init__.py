"""The blockers and classifiers of `X-Features`, for arguments and results of tool calls.

`docs/behaviour.md`, M5 says when they run. `screen` is the entry point; `blockers` and `pii` find
URLs, files and personal data in texts; `topics` scores texts for the deterministic model.
"""

from langchain_sequrity.local.screening.screen import (
    Ask,
    Detection,
    Screen,
    ScreenedValue,
    threshold_of,
)

__all__ = ["Ask", "Detection", "Screen", "ScreenedValue", "threshold_of"]
