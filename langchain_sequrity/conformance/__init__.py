"""Questions to a service, and which of the package's choices its answers confirm or refute.

| Module | Content |
|---|---|
| `client` | a probe as data; the requests it sends, malformed ones included |
| `programs`, `sessions`, `policies`, `formats` | the probes |
| `suite` | a run over all of them, and its report without keys and ids |

`docs/conformance.md` and `python -m langchain_sequrity.conformance -h` describe the command.
"""

from langchain_sequrity.conformance.client import PROBES, Answer, Outcome, Probe, Target
from langchain_sequrity.conformance.suite import Report, run

__all__ = ["PROBES", "Answer", "Outcome", "Probe", "Report", "Target", "run"]
