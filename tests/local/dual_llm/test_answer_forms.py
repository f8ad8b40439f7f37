"""Planners write their programs in many forms, and each is read as the program that it contains.

With more answers: `python -m tests.local.dual_llm.answer_forms --count 5000`.
"""

from itertools import islice

import httpx
import pytest

from langchain_sequrity.local.dual_llm.answer_text import program_in
from tests.local.dual_llm.answer_forms import Reading, answers, broken, is_same
from tests.local.dual_llm.conversation import Stage
from tests.local.dual_llm.dialog import Begin, calls, value


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("seed", range(0, 1_000, 100))
def test_the_program_of_an_answer_is_read_in_any_form(
    stage: Stage, http: httpx.Client, seed: int
) -> None:
    reading = Reading(stage, http)
    misread = []
    for one in islice(answers(seed), 100):
        program = reading.program_of(one.text)
        if not is_same(program, one.program):
            misread.append((one, program))
    assert misread == []


def test_no_part_of_a_program_with_a_mistake_is_read_as_a_program() -> None:
    def can_run(text: str) -> bool:
        return is_same(text, text)

    read = [(one, program_in(one.text, can_run)) for one in map(broken, range(600))]
    assert [(one, program) for one, program in read if can_run(program)] == []


DRAFT = "final_return_value = look_up(word='draft')"
PROGRAM = "final_return_value = look_up(word='a')"


@pytest.mark.parametrize(
    "text",
    [
        f"```\n{DRAFT}\n```\nBetter:\n```\n{PROGRAM}\n```",
        f"```\n{PROGRAM}\n```\nBetter:\n```\n{DRAFT[:-1]}\n```",
        f"<sequrity_plan>{PROGRAM}</sequrity_plan>\nNot this:\n```\n{DRAFT}\n```",
        f"```\n{PROGRAM}\n```\nIt calls this:\n```\nlook_up(word='draft')\n```",
        f"```\nlook_up(word='draft')\n```\nThe program:\n```\n{PROGRAM}\n```",
        "```\nword = 'a'\n```\nThen:\n~~~python\nfinal_return_value = look_up(word=word)",
    ],
    ids=["the last", "the last that can run", "in tags", "with an answer", "a part that is not needed", "a part that is needed"],
)  # fmt: skip
def test_of_several_programs_in_an_answer_one_runs(begin: Begin, text: str) -> None:
    dialog = begin({"text": text})
    assert calls(dialog.say()) == [("look_up", {"word": "a"})]
    assert value(dialog.answer("found")) == "found"


def test_an_answer_with_many_possible_programs_is_checked_a_limited_number_of_times() -> None:
    checked: list[str] = []
    text = "\n".join(f"```\nfinal_return_value = {number} +\n```" for number in range(1_000))

    def can_run(program: str) -> bool:
        checked.append(program)
        return False

    assert program_in(text, can_run)
    assert len(checked) <= 40
