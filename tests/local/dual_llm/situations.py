"""Twelve typical answers of real planners, and how each turn has to end."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from langchain_core.tools import tool

MAIL = {"subject": "Beds", "body": "The meeting about beds is on Friday."}


@tool
def get_mail(number: int) -> dict[str, str]:
    """Get a mail by its number."""
    return MAIL if number == 3 else {"subject": "", "body": ""}


@tool
def list_mails() -> list[int]:
    """List the numbers of all mails."""
    return [1, 2, 3]


@tool
def send_mail(to: str, body: str) -> str:
    """Send a mail to an address."""
    return f"sent {len(body)} letters to {to}"


TOOLS = [get_mail, list_mails, send_mail]
SAID = "Send the subject of mail 3 to ann@example.com."
GOOD = """\
mail = get_mail(number=3)
send_mail(to="ann@example.com", body=mail["subject"])
final_return_value = f"Ann has the subject of mail 3: {mail['subject']}."
"""
VALUE = "Ann has the subject of mail 3: Beds."
READS = """\
from pydantic import BaseModel

class Meeting(BaseModel):
    have_enough_info: bool
    day: str = ""

mail = get_mail(number=3)
read = parse_with_ai(
    query=f"On which day is the meeting? {mail['body']}",
    output_schema=Meeting.model_json_schema(),
)
final_return_value = read["day"] if read["have_enough_info"] else "The mail does not say."
"""
CALLS = ["get_mail", "send_mail"]


@dataclass(frozen=True)
class Situation:
    """A planner's first answer, and how the turn has to continue.

    Attributes:
        first: The first answer.
        told: A text that the second request to the planner must contain; empty if there must be no
            second request.
        then: A second answer that does the task.
        value: The final value of the turn.
        calls: The calls that the turn makes, in order.
        finish: Finish reason of the first answer.
        reader: The answers of the data model, in order.
    """

    first: str
    told: str = ""
    then: str = GOOD
    value: Any = VALUE
    calls: tuple[str, ...] = tuple(CALLS)
    finish: str = "stop"
    reader: tuple[str, ...] = ()


def _lines(text: str) -> Callable[[str], str]:
    return lambda program: text.replace("{}", program.strip())


SITUATIONS: dict[str, Situation] = {
    "it thinks aloud, and puts its program into tags": Situation(
        _lines("<think>\nget_mail(…) first?\n</think>\n<sequrity_plan>\n{}\n</sequrity_plan>")(GOOD)
    ),
    "it explains, and fences its program, with line ends of Windows": Situation(
        _lines("Sure! Here it is:\n\n```python\n{}\n```\n\nIt sends the mail.")(GOOD).replace(
            "\n", "\r\n"
        )
    ),
    "it answers itself": Situation(
        '"The subject of mail 3 is Beds."', "This is an answer, not a program."
    ),
    "it defines a function and calls nothing": Situation(
        "def main():\n    mail = get_mail(number=3)\n    return mail", "The program has no answer."
    ),
    "it prints": Situation(
        "mail = get_mail(number=3)\nprint(mail)", "Put the answer into `final_return_value`"
    ),
    "it calls a tool with arguments that it does not have": Situation(
        'mail = get_mail(id="3")\nfinal_return_value = mail', "It is `get_mail(*, number: int)`"
    ),
    "it has the data model answer out of its head": Situation(
        READS.replace("mail = get_mail(number=3)\n", "").replace(" {mail['body']}", ""),
        "has no data in it",
    ),
    "it uses what the language does not have": Situation(
        'with open("mail") as file:\n    final_return_value = file.read()', "line 1"
    ),
    "its program fails after it has made calls": Situation(
        'mail = get_mail(number=3)\nsend_mail(to="ann@example.com", body=mail["subject"])\n'
        'final_return_value = mail["title"]',
        "send_mail",
    ),
    "it was cut off": Situation(
        'mail = get_mail(number=3)\nsend_mail(to="ann@exam', "It was cut off", finish="length"
    ),
    "its reader talks before it answers": Situation(
        READS,
        value="Friday",
        calls=("get_mail",),
        reader=("On Friday!", '```json\n{"have_enough_info": true, "day": "Friday"}\n```'),
    ),
    "its reader has not enough information": Situation(
        READS,
        value="The mail does not say.",
        calls=("get_mail",),
        reader=('{"have_enough_info": false}',),
    ),
}
