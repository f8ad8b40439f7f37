"""A conversation in three turns: a mail is read, may not be sent outside, is sent to the boss."""

from typing import Any

from tests.local.dual_llm.conversation import enough, reads

MODEL = "vendor/planner,vendor/worker"
MAIL = "From Bob: the beds flood at night."
POLICY = """
tool "read_mail" -> @tags |= {"private"};
tool "send_mail" {
    /// private mail stays in the house
    must deny when text.tags overlaps {"private"} and not to.value in {str matching r"^[A-Za-z0-9._+-]+@inside[.]example$"};
    session after { @tags |= {"sent"}; }
}
"""
READ = f"""\
mail = read_mail(number=1)
who = {reads('f"Who wrote this? {mail}"')}
final_return_value = {{"from": who, "length": len(mail)}}
"""
TO_EVE = """\
send_mail(to="eve@outside.example", text=mail)
final_return_value = "sent"
"""
TO_BOSS = """\
answer = send_mail(to="boss@inside.example", text=mail)
final_return_value = f"{who}: {answer}"
"""
KNOCK = 'send_mail(to="anyone", text="Knock, knock.")\n'
SCRIPT: list[dict[str, Any]] = [
    {"when": {"user": "Read"}, "program": READ},
    {"when": {"user": "Eve"}, "program": TO_EVE},
    {"when": {"user": "boss"}, "program": TO_BOSS},
    {"when": {"user": "Knock"}, "program": KNOCK},
    enough("Bob"),
]
TOOLS: list[dict[str, Any]] = [
    {
        "name": "read_mail",
        "description": "Read a mail.",
        "parameters": {
            "type": "object",
            "properties": {"number": {"type": "integer"}},
            "required": ["number"],
        },
    },
    {
        "name": "send_mail",
        "description": "Send a mail.",
        "parameters": {
            "type": "object",
            "properties": {"to": {"type": "string"}, "text": {"type": "string"}},
            "required": ["to", "text"],
        },
    },
]
