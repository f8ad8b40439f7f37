"""A conformance suite: it asks a service questions, and compares the answers with our assumptions.

| File | Content |
|---|---|
| `probes.toml` | the questions, the assumptions, and the programs of simple probes |
| `probes` | a probe as data; from a reply to its answer and verdict |
| `programs`, `sessions`, `policies`, `formats` | the probes that need a function |
| `client` | the requests of probes, malformed ones included |
| `suite` | a run over all of them, and its report without keys and ids |

`docs/conformance.md` and `python -m langchain_sequrity.conformance -h` describe the command.
"""

from langchain_sequrity.conformance.client import Target
from langchain_sequrity.conformance.probes import Answer, Outcome, Probe
from langchain_sequrity.conformance.suite import PROBES, Report, run

__all__ = ["PROBES", "Answer", "Outcome", "Probe", "Report", "Target", "run"]
