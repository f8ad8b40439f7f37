"""A conformance suite: it asks a service questions, and compares the answers with our assumptions.

| File | Content |
|---|---|
| `probes.toml` | the questions, the assumptions, and the programs of most probes |
| `probes` | a probe as data; how it is asked and judged |
| `readers` | from a reply to an answer |
| `questions` | the probes that send their own requests |
| `client` | the requests of probes, malformed ones included |
| `suite` | a run over all of them, and its report without keys and ids |

`docs/conformance.md` and `python -m langchain_sequrity.conformance -h` describe the command.
"""

from langchain_sequrity.conformance.client import Target
from langchain_sequrity.conformance.probes import Outcome, Probe
from langchain_sequrity.conformance.readers import Answer
from langchain_sequrity.conformance.suite import PROBES, Report, run

__all__ = ["PROBES", "Answer", "Outcome", "Probe", "Report", "Target", "run"]
