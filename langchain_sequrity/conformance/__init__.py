"""Questions to a service, and which of the package's choices its answers confirm or refute.

| Module | Idea |
|---|---|
| `probe` | a question as data, and what became of it |
| `client` | requests of the probes, also such as no client would send |
| `programs`, `sessions`, `policies`, `formats` | the probes |
| `suite` | a run over all of them |
| `report` | what was found, free of keys and ids |

`docs/conformance.md` says how it is used. `python -m langchain_sequrity.conformance -h` as well.
"""

from langchain_sequrity.conformance.client import PROBES, Answer, Outcome, Probe, Target
from langchain_sequrity.conformance.suite import Report, run

__all__ = ["PROBES", "Answer", "Outcome", "Probe", "Report", "Target", "run"]
