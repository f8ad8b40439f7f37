"""The blockers and classifiers of `X-Features`, which look at arguments and results.

When they look is rule M5 of `docs/behaviour.md`. Blockers and `pii_redaction` follow fixed rules
and replace what they find with a marker. The other classifiers ask a model for a score; one that
strikes withholds the whole value.

`screen` is the entrance. `redaction` walks through a value, `blockers` and `pii` find places in its
texts, and `keywords` scores texts where there is no model.
"""

from langchain_sequrity.local.screening.redaction import Finding
from langchain_sequrity.local.screening.screen import Ask, Outcome, Screen

__all__ = ["Ask", "Finding", "Outcome", "Screen"]
