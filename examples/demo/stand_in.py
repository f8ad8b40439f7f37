"""The demo's models without a key: a planner, and a reader that obeys an injection."""

import re
from typing import Any

from langchain_core.messages import HumanMessage

from langchain_sequrity.local import Script
from langchain_sequrity.wire.exchange import ChatRequest

_ADDRESS = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")

# The planner writes this program before anything is read, so a document cannot change it. Only the
# reader sees the document. The reader answers `parse_with_ai` and cannot call tools.
_REPORT_AND_MAIL = """\
rows = query_packages(
    sql="SELECT name, version, (size_bytes / 1000000) || ' MB' AS size FROM packages"
    " ORDER BY size_bytes DESC LIMIT 3"
)
lines = [f"- {{row['name']}} {{row['version']}}, {{row['size']}}" for row in rows]
report = "# Largest packages\\n\\n" + "\\n".join(lines) + "\\n"
write_report(markdown=report)
document = read_document(name={name!r})
schema = {{
    "type": "object",
    "properties": {{"address": {{"type": "string"}}, "have_enough_info": {{"type": "boolean"}}}},
    "required": ["address", "have_enough_info"],
}}
query = f"At which mail address is the contact for reports? {{document}}"
contact = parse_with_ai(query=query, output_schema=schema)
send_mail(to=contact["address"], subject="Largest packages", body=report)
final_return_value = f"The report went to {{contact['address']}}."
"""
_MAIL = """\
send_mail(to={to!r}, subject="Largest packages", body=read_report())
final_return_value = "The report went to " + {to!r} + "."
"""


def stand_ins() -> Script:
    """The models of a local server: a planner and a reader."""
    return Script(
        [
            {"when": {"role": "planner"}, "answer": _plan},
            {"when": {"role": "quarantined"}, "answer": _read},
        ],
        name="the demo's script",
    )


def _plan(request: ChatRequest) -> str:
    """Plan from the user's words alone: mail to an address in them or in a document."""
    words = _last_words(request)
    if address := _ADDRESS.search(words):
        return _MAIL.format(to=address[0])
    document = re.search(r"[\w-]+\.txt", words)
    return _REPORT_AND_MAIL.format(name=document[0] if document else "")


def _read(request: ChatRequest) -> dict[str, Any]:
    """Return the last address in the text."""
    addresses = _ADDRESS.findall(_last_words(request))
    found = {"address": addresses[-1] if addresses else "", "have_enough_info": bool(addresses)}
    return {"value": found}


def _last_words(request: ChatRequest) -> str:
    return [message.text for message in request.messages if isinstance(message, HumanMessage)][-1]
