"""A planner that follows the advice to the letter is right in its next program, and nothing ran."""

from itertools import islice

from langchain_sequrity.local import LocalServer
from tests.local.dual_llm.broken_programs import Planner, broken_programs, fault_of


def test_a_broken_program_is_refused_with_advice_that_leads_to_the_right_one() -> None:
    planner, faults = Planner(), []
    with LocalServer(script=[{"when": {"role": "planner"}, "answer": planner}]) as server:
        for broken in islice(broken_programs(), 42):
            fault = fault_of(planner, server.base_url, broken)
            if fault is not None:
                faults.append((broken.kind, fault))
    assert not faults
