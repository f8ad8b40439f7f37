"""Blockers and classifiers: what `X-Features` has looked for in arguments and results.

When they look is rule M5 of `docs/behaviour.md`. Blockers and `pii_redaction` follow fixed rules
and replace what they find by a marker. The other classifiers ask a model for a score; where it
strikes, nothing of the value goes on.
"""

from langchain_sequrity.local.screening.findings import Finding, Outcome
from langchain_sequrity.local.screening.screen import Screen

__all__ = ["Finding", "Outcome", "Screen"]
