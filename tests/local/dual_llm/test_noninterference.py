"""The planner's prompts do not depend on data, wherever an error could quote it (T3).

With more sessions: `python -m tests.local.dual_llm.noninterference --count 1000`.
"""

from dataclasses import replace
from itertools import islice

import httpx
import pytest

from tests.local.dual_llm.conversation import Stage
from tests.local.dual_llm.noninterference import PLACES, WORDS, Rehearsal, judge, trial, trials


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("seed", range(0, 400, 20))
def test_no_prompt_of_a_session_depends_on_its_data(
    stage: Stage, http: httpx.Client, seed: int
) -> None:
    rehearsal = Rehearsal(stage, http)
    judged = [(one, judge(one, rehearsal)) for one in islice(trials(seed), 20)]
    assert [(one, problem) for one, problem in judged if problem] == []


# Programs whose feedback once depended on the data.
CHOSEN = [
    "raise NameError(f\"name '{x}' is not defined\")  # title, owner",
    "errors = {'title': KeyError(x), 'owner': KeyError(x)}\nraise errors['title']",
    "try:\n    {}[x]\nexcept KeyError as e:\n    errors = {'title': e, 'owner': e}\nraise errors['title']",
    "raise AttributeError(f\"'str' object has no attribute '{x}'\")  # .title .owner",
    "{'title': 1}['title'], {}[\n    x\n]",
    "{'title': 1, 'owner': 2}['title'], {'owner': 1}['owner'], ('%(' + x + ')s') % {}",
    "{}[  # ['title'] ['owner']\n    x]",
    "note(**{x: n})\nnote(title=1)\nnote(owner=2)\nraise ValueError(x)",
]  # fmt: skip


@pytest.mark.parametrize("place", CHOSEN)
def test_data_do_not_choose_among_the_words_of_the_program_that_the_planner_is_told(
    stage: Stage, http: httpx.Client, place: str
) -> None:
    one = trial(0, [("chosen", place)])
    first, second = (replace(data, text=word) for data, word in zip(one.data, WORDS, strict=True))
    fsm = {"max_pllm_failed_steps": 3}
    assert (
        judge(replace(one, data=(first, second), config={"fsm": fsm}), Rehearsal(stage, http)) == ""
    )


def test_the_errors_contain_the_data_and_the_planner_sees_them_if_x_config_shows_them(
    stage: Stage, http: httpx.Client
) -> None:
    rehearsal = Rehearsal(stage, http)
    for number, name in enumerate(["raised", "imitated", "chained", "keys", "converted"]):
        one = trial(number, [(name, PLACES[name][0])])
        config = {**one.config, "prompt": {"pllm": {"debug_info_level": "extra"}}}
        assert "depends on the data" in judge(replace(one, config=config), rehearsal)
