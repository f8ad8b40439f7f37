"""Soft denials: a human approves or rejects the call, and the run continues or ends."""

import operator
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import count, product
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send, interrupt

from langchain_sequrity import ChatSequrity, FeaturesHeader, PolicyHeader, with_labels
from langchain_sequrity.errors import BadReply, PolicyDenied, UsageError
from langchain_sequrity.local import LocalServer
from langchain_sequrity.wire.denials import read_check
from tests.graph.ledger import SAVERS, Ledger, Ran, ledger, saver_of, thread
from tests.graph.running import secured
from tests.graph.services import DUAL, noted
from tests.graph.shapes.traced import Traced, connect, traced, visit

APPROVE: Command[Any] = Command(resume={"decisions": [{"type": "approve"}]})
REJECT: Command[Any] = Command(resume={"decisions": [{"type": "reject", "message": "Too much."}]})
SOFT = 'tool "pay" { /// Ask before you pay.\n should deny always; }'
BY_SESSION = """
tool "read" { session after { @tags |= {"late"}; } }
tool "pay" { should deny always; result { when "late" in session.tags { @tags |= {"late"}; } } }
"""
BROKEN = "the till is jammed"
ON_REPORT = 'tool "report" { should deny always; }'


@pytest.fixture(scope="module")
def local() -> Iterator[LocalServer]:
    with LocalServer() as server:
        yield server


@pytest.fixture(params=SAVERS)
def saver(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    with saver_of(request.param, tmp_path) as found:
        yield found


def model_of(local: LocalServer, policy: Any, **options: Any) -> ChatSequrity:
    return ChatSequrity(
        "any/model", base_url=local.base_url, policy=policy, **{"features": DUAL, **options}
    )


def asking(local: LocalServer, graph: Any, policy: Any, saver: Any = None, **options: Any) -> Any:
    saver = InMemorySaver() if saver is None else saver
    model = model_of(local, policy, **options)
    return secured(graph, model, checkpointer=saver, on_denied="interrupt")


def request_of(state: dict[str, Any]) -> Any:
    [asked] = state["__interrupt__"]
    return asked.value


def test_a_soft_denial_asks_for_approval_in_langchains_format(local: LocalServer) -> None:
    ran = Ran()
    request = request_of(asking(local, ledger(ran), SOFT).invoke({"due": [7]}, thread()))
    [action], [review] = request["action_requests"], request["review_configs"]
    assert (action["name"], action["args"]) == ("pay", {"due": [7]})
    assert action["description"] == (
        "The policy denied the call of `pay` (node `pay`): Ask before you pay. "
        "Its rule is `should deny always` (line 2 of the policy). "
        "`due`: made of what `read` returned. You may approve this call, once."
    )
    denial = request["denial"]
    assert (denial["tool"], denial["node"], denial["strength"]) == ("pay", "pay", "soft")
    assert (denial["rule"], denial["reason"]) == ("should deny always;", "Ask before you pay.")
    assert denial["labels"]["due"]["producers"] == ["read"]
    assert "arguments" not in denial
    assert review == {"action_name": "pay", "allowed_decisions": ["approve", "reject"]}
    assert ran == ["read"]


def test_an_approved_call_is_made_once_and_the_run_continues(
    local: LocalServer, saver: Any
) -> None:
    ran = Ran()
    executor = asking(local, ledger(ran), SOFT, saver)
    executor.invoke({"due": [7]}, thread())
    state = executor.invoke(APPROVE, thread())
    assert state == ledger(Ran()).compile().invoke({"due": [7]})
    assert ran == ["read", "pay", "more", "report"]


async def test_an_approved_call_is_made_once_in_an_event_loop(local: LocalServer) -> None:
    ran = Ran()
    executor = asking(local, ledger(ran), SOFT)
    await executor.ainvoke({"due": [7]}, thread())
    assert (await executor.ainvoke(APPROVE, thread()))["note"] == "paid 7"
    assert ran == ["read", "pay", "more", "report"]


@pytest.mark.parametrize("history", ["new", "whole"])
def test_each_denied_call_needs_its_own_approval(
    local: LocalServer, history: Any, saver: Any
) -> None:
    ran = Ran()
    model = model_of(local, SOFT)
    executor = secured(
        ledger(ran), model, checkpointer=saver, on_denied="interrupt", history=history
    )
    state = executor.invoke({"due": [1, 2, 3]}, thread())
    for due in ([1, 2, 3], [2, 3], [3]):
        [action] = request_of(state)["action_requests"]
        assert action["args"] == {"due": due}
        state = executor.invoke(APPROVE, thread())
    assert state == ledger(Ran()).compile().invoke({"due": [1, 2, 3]})
    assert ran == ["read", *["pay", "more"] * 3, "report"]


def test_an_approval_applies_only_to_the_denied_call(local: LocalServer) -> None:
    ran = Ran()
    executor = asking(local, ledger(ran), ON_REPORT)
    state = executor.invoke({"due": [1, 2]}, thread())
    assert ran == ["read", "pay", "more", "pay", "more"]
    assert request_of(state)["action_requests"][0]["name"] == "report"
    assert executor.invoke(APPROVE, thread())["note"] == "paid 3"
    assert ran == ["read", "pay", "more", "pay", "more", "report"]


def test_an_approval_is_not_valid_in_the_next_run_of_the_thread(local: LocalServer) -> None:
    executor = asking(local, ledger(Ran()), SOFT)
    executor.invoke({"due": [1]}, thread())
    executor.invoke(APPROVE, thread())
    again = executor.invoke({"due": [1]}, thread())
    assert request_of(again)["action_requests"][0]["name"] == "pay"


def test_the_decision_of_a_router_can_be_approved(local: LocalServer) -> None:
    ran = Ran()
    executor = asking(local, ledger(ran), 'tool "more__from__pay" { should deny always; }')
    request = request_of(executor.invoke({"due": [1]}, thread()))
    assert request["action_requests"][0]["name"] == "more__from__pay"
    assert executor.invoke(APPROVE, thread())["note"] == "paid 1"
    assert ran == ["read", "pay", "more", "report"]


def test_the_first_call_of_a_run_can_be_approved(local: LocalServer, saver: Any) -> None:
    ran = Ran()
    executor = asking(local, ledger(ran), 'tool "read" { should deny always; }', saver)
    executor.invoke({"due": [1]}, thread())
    assert executor.invoke(APPROVE, thread())["note"] == "paid 1"
    assert ran == ["read", "pay", "more", "report"]


def test_a_rejected_call_is_a_denial_that_names_the_rejection(
    local: LocalServer, saver: Any
) -> None:
    ran = Ran()
    executor = asking(local, ledger(ran), SOFT, saver)
    executor.invoke({"due": [7]}, thread())
    with pytest.raises(
        PolicyDenied, match=r"A human rejected the call of `pay`.*: Too much"
    ) as caught:
        executor.invoke(REJECT, thread())
    error = caught.value
    assert (error.tool, error.node) == ("pay", "pay")
    assert error.arguments["due"] == [7]
    assert "should deny always" in error.rule
    assert ran == ["read"]


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("not before noon", ": not before noon. Its rule"),
        ("Not before noon.", ": Not before noon. Its rule"),
        ("Now?", ": Now? Its rule"),
    ],
)
def test_each_sentence_of_a_question_ends_with_exactly_one_punctuation_mark(
    local: LocalServer, reason: str, said: str
) -> None:
    policy = f'tool "pay" {{ /// {reason}\n should deny always; }}'
    executor = asking(local, ledger(Ran()), policy)
    request = request_of(executor.invoke({"due": [7]}, thread()))
    description = request["action_requests"][0]["description"]
    assert said in description
    with pytest.raises(PolicyDenied) as caught:
        executor.invoke(REJECT, thread())
    assert str(caught.value) == "A human rejected the call of `pay` (node `pay`): Too much."
    assert (caught.value.reason, caught.value.denial.objection) == (reason, "Too much.")


@pytest.mark.parametrize(
    "answer",
    [
        "yes", True, {"decisions": []}, {"decisions": "approve"},
        {"decisions": [{"type": "edit", "edited_action": {"name": "pay", "args": {}}}]},
        {"decisions": [{"type": "approve"}, {"type": "approve"}]},
        [{"type": "approve"}],
    ],
)  # fmt: skip
def test_after_an_answer_that_is_not_a_decision_the_question_is_asked_again(
    local: LocalServer, answer: Any
) -> None:
    ran = Ran()
    executor = asking(local, ledger(ran), SOFT)
    executor.invoke({"due": [7]}, thread())
    request = request_of(executor.invoke(Command(resume=answer), thread()))
    description = request["action_requests"][0]["description"]
    assert description.startswith("The last answer was not understood; resume with `Command(")
    assert '"reject" with a "message". The policy denied the call of `pay`' in description
    assert ran == ["read"]
    assert executor.invoke(APPROVE, thread())["note"] == "paid 7"


@pytest.mark.parametrize(
    ("policy", "options", "why"),
    [
        ('tool "pay" { must deny always; }', {}, "it is hard."),
        (PolicyHeader.from_sqrt("", default_allow=False, default_allow_enforcement_level="hard"),
         {}, "it is hard."),
        ('tool "pay" { should deny always; session after { @tags |= {"paid"}; } }', {}, "session"),
        ('tool r"p.*" { session before { @tags |= {"tried"}; } } tool "pay" { should deny always; }',
         {}, "session"),
        (BY_SESSION, {}, "session"),
        (SOFT, {"features": FeaturesHeader.dual_llm(blockers=["url_blocker"])}, "blockers"),
    ],
    ids=[
        "hard rule", "hard default", "session after", "session before", "result by session",
        "blockers",
    ],
)  # fmt: skip
def test_a_denial_that_cannot_be_approved_is_an_error_with_the_reason(
    local: LocalServer, policy: Any, options: dict[str, Any], why: str
) -> None:
    ran = Ran()
    executor = asking(local, ledger(ran), policy, **options)
    with pytest.raises(PolicyDenied) as caught:
        executor.invoke({"due": [7]}, thread())
    [note] = [one for one in caught.value.__notes__ if "not offered for approval" in one]
    assert why in note
    assert "pay" not in ran


@pytest.mark.parametrize(
    ("entry", "strength"),
    [
        ({"verdict": "soft_denied", "denied": [{"enforcement_level": "soft"}]}, "soft"),
        ({"final_verdict": "soft_denied", "denied": [{"enforcement_level": "soft"}]}, "soft"),
        ({"verdict": "hard_denied"}, "hard"),
        ({"verdict": "soft_denied", "final_verdict": "hard_denied",
          "denied": [{"enforcement_level": "soft"}]}, "hard"),
        ({"verdict": "denied", "denied": [{"enforcement_level": "hard"}]}, "hard"),
        ({"verdict": "soft_denied",
          "denied": [{"enforcement_level": "soft"}, {"enforcement_level": "hard"}]}, "hard"),
        ({"verdict": "soft_denied", "denied": [{"enforcement_level": "soft"}, {}]}, None),
        ({"verdict": "soft_denied", "denied": []}, None),
        ({"verdict": "soft_denied"}, None),
        ({"verdict": "soft_denied", "denied": "soft"}, None),
        ({"denied": [{"enforcement_level": "soft"}]}, None),
        ({"verdict": ["hard_denied"], "denied": [None]}, None),
    ],
)  # fmt: skip
def test_a_denial_is_soft_only_if_every_part_of_its_check_says_so(
    entry: dict[str, Any], strength: str | None
) -> None:
    denial = read_check({"tool": "pay", **entry})
    assert (denial and denial.strength) == strength
    assert read_check([entry]) is None


def test_a_hard_denial_after_an_approval_is_an_error(local: LocalServer) -> None:
    ran = Ran()
    executor = asking(local, ledger(ran), SOFT + ' tool "report" { must deny always; }')
    executor.invoke({"due": [7]}, thread())
    with pytest.raises(PolicyDenied, match="report") as caught:
        executor.invoke(APPROVE, thread())
    assert caught.value.node == "report"
    assert ran == ["read", "pay", "more"]


@pytest.mark.parametrize(
    "rule",
    [
        'must deny when "pay" in paid.producers;',
        'must deny when "cash" in paid.tags;',
        'must deny when "read" in paid.producers;',
        'must deny when "by_rule" in paid.tags;',
        'must deny when "__non_executable" in paid.tags;',
    ],
)
def test_the_result_of_an_approved_call_has_the_same_labels_as_that_of_an_allowed_call(
    local: LocalServer, rule: str
) -> None:
    """They come from the node's name, the node, its arguments, the rules and the presets."""

    def pay(state: Ledger) -> dict[str, Any]:
        return with_labels({"due": [], "paid": state["due"]}, tags=["cash"])

    policy = (
        'tool "pay" { should deny always; result { @tags |= {"by_rule"}; } } '
        f'tool "report" {{ {rule} }}'
    )
    executor = asking(local, ledger(Ran(), pay=pay), policy)
    executor.invoke({"due": [7]}, thread())
    with pytest.raises(PolicyDenied) as caught:
        executor.invoke(APPROVE, thread())
    assert caught.value.node == "report"


def test_a_node_that_fails_after_its_approval_runs_again_without_a_new_question(
    local: LocalServer, saver: Any
) -> None:
    ran = Ran()

    def pay(state: Ledger) -> dict[str, Any]:
        ran.append("pay")
        if ran.of("pay") == 1:
            raise OSError(BROKEN)
        return {"due": [], "paid": state["due"]}

    executor = asking(local, ledger(ran, pay=pay), SOFT, saver)
    executor.invoke({"due": [7]}, thread())
    with pytest.raises(OSError, match=BROKEN):
        executor.invoke(APPROVE, thread())
    assert executor.invoke(None, thread())["note"] == "paid 7"
    assert ran == ["read", "pay", "pay", "more", "report"]


def test_an_approved_call_that_was_made_is_not_made_again_by_another_process(
    local: LocalServer, tmp_path: Path
) -> None:
    ran = Ran()

    def report(state: Ledger) -> dict[str, Any]:
        ran.append("report")
        if ran.of("report") == 1:
            raise OSError(BROKEN)
        return {"note": f"paid {sum(state['paid'])}"}

    for step in ({"due": [7]}, APPROVE, None):
        with saver_of("sqlite", tmp_path) as saver:
            executor = asking(local, ledger(ran, report=report), SOFT, saver)
            if step is APPROVE:
                with pytest.raises(OSError, match=BROKEN):
                    executor.invoke(step, thread())
            else:
                state = executor.invoke(step, thread())
    assert state["note"] == "paid 7"
    assert ran == ["read", "pay", "more", "report", "report"]


@pytest.mark.parametrize(
    ("stage", "changed"),
    [
        *product(("asked", "approved", "made"), ("policy", "rule on results")),
        # After a made call, another graph only continues its run, with the program of that run.
        *product(("asked", "approved"), ("graph",)),
    ],
)
def test_an_approval_does_not_carry_over_to_another_policy_or_graph(
    local: LocalServer, stage: str, changed: str
) -> None:
    saver, ran = InMemorySaver(), Ran()
    failing = {"approved": "pay", "made": "report"}.get(stage, "")

    def node(name: str, update: dict[str, Any]) -> Any:
        def run(_: Ledger) -> dict[str, Any]:
            ran.append(name)
            if name == failing and ran.of(name) == 1:
                raise OSError(BROKEN)
            return update

        return run

    nodes = {"pay": node("pay", {"due": [], "paid": [7]}), "report": node("report", {"note": "7"})}
    executor = asking(local, ledger(ran, **nodes), SOFT, saver)
    executor.invoke({"due": [7]}, thread())
    if stage != "asked":
        with pytest.raises(OSError, match=BROKEN):
            executor.invoke(APPROVE, thread())
    graph, policy = ledger(ran, **nodes), SOFT
    match changed:
        case "graph":
            graph.add_node("other", lambda _state: {"note": "x"}).add_edge("read", "other")
        case "policy":
            policy += ' tool "other" { must deny always; }'
        case _:
            policy += ' tool "pay" { result { @tags |= {"paid"}; } }'
    before = [*ran]
    with pytest.raises(UsageError, match="is not valid for this executor"):
        asking(local, graph, policy, saver).invoke(APPROVE if stage == "asked" else None, thread())
    assert ran == before


def test_a_question_sends_no_request_and_an_approval_begins_a_new_session(
    local: LocalServer,
) -> None:
    ran = Ran()
    with noted(local.base_url, policy=SOFT) as (model, sent):
        executor = secured(ledger(ran), model, checkpointer=InMemorySaver(), on_denied="interrupt")
        executor.invoke({"due": [7]}, thread())
        assert sent.sessions()[0] is None
        assert len(sent) == 2
        executor.invoke(Command(resume="what?"), thread())
        assert len(sent) == 2
        executor.invoke(APPROVE, thread())
        sessions = sent.sessions()
    assert sessions[2] is None
    assert len(set(sessions[3:])) == 1
    assert sessions[3] not in (None, sessions[1])


def test_a_replay_that_differs_from_the_record_is_an_error_and_no_node_runs_again(
    local: LocalServer,
) -> None:
    ran, saver = Ran(), InMemorySaver()
    executor = asking(local, ledger(ran), ON_REPORT, saver)
    executor.invoke({"due": [1, 2]}, thread())
    for place, (kind, content) in list(saver.blobs.items()):
        changed = content.replace(b'{"due":[1,2]}', b'{"due":[5,2]}')
        saver.blobs[place] = (kind, changed)
    for writes in saver.writes.values():
        for key, (task, channel, (kind, content), path) in list(writes.items()):
            changed = content.replace(b'{"due":[1,2]}', b'{"due":[5,2]}')
            writes[key] = (task, channel, (kind, changed), path)
    with pytest.raises(BadReply, match="another path than in the recorded run"):
        executor.invoke(APPROVE, thread())
    assert ran == ["read", "pay", "more", "pay", "more", "report"]


def test_the_program_after_an_approval_gets_the_result_from_a_variable(local: LocalServer) -> None:
    with noted(local.base_url, policy=SOFT) as (model, sent):
        executor = secured(
            ledger(Ran()), model, checkpointer=InMemorySaver(), on_denied="interrupt", history="new"
        )
        executor.invoke({"due": [1, 2]}, thread())
        executor.invoke(APPROVE, thread())
        programs = [one["user_provided_program"] for one in sent if "user_provided_program" in one]
        variables = [one["context_vars"] for one in sent if "context_vars" in one]
    assert programs[0] == executor.program
    assert "a human approved" in programs[1]
    assert variables[1]["approved_pay_1"]["value"] == {"due": [2], "paid": [1]}
    assert variables[1]["approved_pay_1"]["meta"]["producers"] == ["pay", "read"]


def test_a_call_in_a_straight_line_program_can_be_approved(local: LocalServer) -> None:
    graph = connect(traced("a", "b", "c"), "__start__>a", "a>b", "b>c")
    executor = asking(local, graph, 'tool "b" { should deny always; }')
    assert "for " not in executor.program
    executor.invoke({}, thread())
    assert executor.invoke(APPROVE, thread())["trace"] == ["a", "b", "c"]


def test_the_call_of_a_send_can_be_approved(local: LocalServer) -> None:
    """The second of three `Send`s is denied. The others need no approval."""

    def each(state: Traced) -> dict[str, Any]:
        return {"trace": [f"worker {state['n']}"]}

    graph = traced("split", worker=each)
    connect(graph, "__start__>split")
    graph.add_conditional_edges(
        "split", lambda _state: [Send("worker", {"n": n}) for n in range(3)]
    )
    policy = 'tool "worker" { should deny when n.value in {int 1..1}; }'
    ran = asking(local, graph, policy)
    [action] = request_of(ran.invoke({}, thread()))["action_requests"]
    assert action["args"]["n"] == 1
    assert ran.invoke(APPROVE, thread())["trace"] == ["split", "worker 0", "worker 1", "worker 2"]


def test_a_second_approval_of_one_denial_does_nothing(local: LocalServer, saver: Any) -> None:
    ran = Ran()
    executor = asking(local, ledger(ran), SOFT, saver)
    executor.invoke({"due": [7]}, thread())
    first = executor.invoke(APPROVE, thread())
    assert executor.invoke(APPROVE, thread()) == first
    assert ran.of("pay") == 1


def test_a_thread_can_begin_a_new_run_after_a_rejection(local: LocalServer, saver: Any) -> None:
    ran = Ran()
    executor = asking(local, ledger(ran), SOFT, saver)
    executor.invoke({"due": [7]}, thread())
    for resumed in (REJECT, None):
        with pytest.raises(PolicyDenied, match="rejected"):
            executor.invoke(resumed, thread())
    executor.invoke({"due": [8]}, thread())
    assert executor.invoke(APPROVE, thread())["paid"] == [8]
    assert ran == ["read", "read", "pay", "more", "report"]


def test_an_outer_graph_passes_the_question_on(local: LocalServer) -> None:
    ran = Ran()
    secure = secured(ledger(ran), model_of(local, SOFT), on_denied="interrupt")
    parent: Any = StateGraph(Ledger)
    parent.add_node("secure", secure).add_edge(START, "secure")
    graph = parent.compile(checkpointer=InMemorySaver())
    state = graph.invoke({"due": [7]}, thread())
    assert state["__interrupt__"][0].value["action_requests"][0]["name"] == "pay"
    assert graph.invoke(APPROVE, thread())["note"] == "paid 7"
    assert ran == ["read", "pay", "more", "report"]


_CHILD = """
import os, signal, sys
import httpx
from langchain_sequrity import ChatSequrity
from langchain_sequrity.wire.denials import read_check
from tests.graph.ledger import Ran, ledger, saver_of, thread
from tests.graph.running import secured
from tests.graph.test_approval import APPROVE, SOFT

url, folder, log, kill_at = sys.argv[1:]

class Logged(Ran):
    def append(self, name):
        with open(log, "a") as file:
            file.write(name + "\\n")
        if name == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

def sent(request):
    if kill_at == "request after pay" and "pay" in open(log).read():
        os.kill(os.getpid(), signal.SIGKILL)

from pathlib import Path
with saver_of("sqlite", Path(folder)) as saver, httpx.Client(event_hooks={"request": [sent]}) as client:
    model = ChatSequrity("any/model", base_url=url, policy=SOFT, http_client=client)
    secured(ledger(Logged()), model, checkpointer=saver, on_denied="interrupt").invoke(
        APPROVE, thread(), durability="sync"
    )
"""


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("killed_at", ["request after pay", "more", "report"])
def test_an_approved_call_is_not_made_again_after_the_process_was_killed(
    local: LocalServer, tmp_path: Path, killed_at: str
) -> None:
    ran, log = Ran(), tmp_path / "ran.txt"
    with saver_of("sqlite", tmp_path) as saver:
        asking(local, ledger(ran), SOFT, saver).invoke({"due": [7]}, thread())
    arguments = [local.base_url, str(tmp_path), str(log), killed_at]
    child = subprocess.run(  # noqa: S603 - this interpreter, this script
        [sys.executable, "-c", _CHILD, *arguments], check=False, capture_output=True
    )
    assert child.returncode == -signal.SIGKILL, child.stderr.decode()
    with saver_of("sqlite", tmp_path) as saver:
        state = asking(local, ledger(ran), SOFT, saver).invoke(None, thread())
    assert state["note"] == "paid 7"
    made = {
        "request after pay": ["pay"],
        "more": ["pay", "more"],
        "report": ["pay", "more", "report"],
    }
    assert log.read_text().split() == made[killed_at]
    assert "pay" not in ran


class Order(TypedDict, total=False):
    to: str
    log: Annotated[list[Any], operator.add]


def order(ran: list[Any], *, asks: bool = False) -> Any:
    """`pay`, which may ask a question of its own."""

    def pay(state: Order) -> dict[str, Any]:
        ran.append((state["to"], interrupt("How much?") if asks else None))
        return {"log": [state["to"]]}

    return StateGraph(Order).add_node("pay", pay).add_edge(START, "pay")


def answer(executor: Any, state: dict[str, Any], value: Any, *, by_id: bool, **update: Any) -> Any:
    [asked] = state["__interrupt__"]
    resume = {asked.id: value} if by_id else value
    return executor.invoke(Command(resume=resume, update=update or None), thread())


ALL_BUT_ANA = 'tool "pay" { should deny when not to.value in {"ana"}; }'


@pytest.mark.parametrize("by_id", [False, True], ids=["newest", "by id"])
def test_an_answer_with_an_update_that_changes_the_call_asks_about_the_new_call(
    local: LocalServer, saver: Any, by_id: Any
) -> None:
    ran: list[Any] = []
    executor = asking(local, order(ran), SOFT, saver)
    state = executor.invoke({"to": "ada"}, thread())
    digest = request_of(state)["digest"]
    state = answer(executor, state, APPROVE.resume, by_id=by_id, to="bob")
    request = request_of(state)
    assert request["action_requests"][0]["args"] == {"to": "bob"}
    assert request["digest"] != digest
    assert not ran
    executor.invoke(APPROVE, thread())
    assert ran == [("bob", None)]


def test_an_answer_with_an_update_that_does_not_change_the_call_counts(local: LocalServer) -> None:
    ran: list[Any] = []
    executor = asking(local, order(ran), SOFT)
    executor.invoke({"to": "ada"}, thread())
    executor.invoke(Command(resume=APPROVE.resume, update={"log": ["noted"]}), thread())
    assert ran == [("ada", None)]


def test_an_answer_may_name_the_digest_of_its_call_and_then_counts_for_no_other(
    local: LocalServer,
) -> None:
    ran: list[Any] = []
    executor = asking(local, order(ran), SOFT)
    digest = request_of(executor.invoke({"to": "ada"}, thread()))["digest"]

    def approve(digest: str) -> Any:
        decision = {"type": "approve", "digest": digest}
        return executor.invoke(Command(resume={"decisions": [decision]}), thread())

    [request] = request_of(approve("0" * 64))["action_requests"]
    assert request["description"].startswith("The last answer was for another call.")
    assert not ran
    approve(digest)
    assert ran == [("ada", None)]


@pytest.mark.parametrize("by_id", [False, True], ids=["newest", "by id"])
def test_a_nodes_own_question_gets_only_the_answers_to_it(
    local: LocalServer, saver: Any, by_id: Any
) -> None:
    ran: list[Any] = []
    executor = asking(local, order(ran, asks=True), ALL_BUT_ANA, saver)
    state = executor.invoke({"to": "ada"}, thread())
    state = answer(executor, state, APPROVE.resume, by_id=by_id)
    assert request_of(state) == "How much?"
    answer(executor, state, 5, by_id=by_id)
    # An edit makes the question needless, so its answer is for nobody.
    state = executor.invoke({"to": "bob"}, thread())
    state = answer(executor, state, APPROVE.resume, by_id=by_id, to="ana")
    assert request_of(state) == "How much?"
    assert ran == [("ada", 5)]


@pytest.mark.parametrize("by_id", [False, True], ids=["newest", "by id"])
def test_an_answer_to_a_nodes_own_question_approves_nothing(
    local: LocalServer, saver: Any, by_id: Any
) -> None:
    ran: list[Any] = []
    executor = asking(local, order(ran, asks=True), ALL_BUT_ANA, saver)
    state = executor.invoke({"to": "ana"}, thread())
    assert request_of(state) == "How much?"
    state = answer(executor, state, APPROVE.resume, by_id=by_id, to="cy")
    assert request_of(state)["action_requests"][0]["args"] == {"to": "cy"}
    assert not ran


def test_an_answer_that_comes_again_after_a_failure_is_not_for_the_nodes_own_question(
    local: LocalServer,
) -> None:
    ran: list[Any] = []
    failures = [OSError(BROKEN)]

    def pay(state: Order) -> None:
        if failures:
            raise failures.pop()
        ran.append((state["to"], interrupt("How much?")))

    executor = asking(local, StateGraph(Order).add_node("pay", pay).add_edge(START, "pay"), SOFT)
    executor.invoke({"to": "ada"}, thread())
    with pytest.raises(OSError, match=BROKEN):
        executor.invoke(APPROVE, thread())
    assert request_of(executor.invoke(APPROVE, thread())) == "How much?"
    executor.invoke(Command(resume=5), thread())
    assert ran == [("ada", 5)]


class Growing(InMemorySaver):
    """Gives versions of channels whose random part grows."""

    def get_next_version(self, current: Any, channel: None) -> Any:
        version = super().get_next_version(current, channel)
        return f"{version.partition('.')[0]}.{next(NUMBERS):016}"


NUMBERS = count()


def test_an_update_beside_an_answer_is_an_edit_once(local: LocalServer) -> None:
    """LangGraph applies it again in each run until the step is over."""
    ran: list[Any] = []
    executor = asking(local, order(ran, asks=True), SOFT, Growing())
    state = executor.invoke({"to": "ada"}, thread())
    state = answer(executor, state, APPROVE.resume, by_id=False, to="bob")
    state = answer(executor, state, APPROVE.resume, by_id=False)
    answer(executor, state, 5, by_id=False)
    assert ran == [("bob", 5)]


def test_an_edit_while_a_router_waits_asks_about_the_call_of_its_node_again(
    local: LocalServer, saver: Any
) -> None:
    def then(state: Order) -> str:
        return "end" if state["to"] else "pay"

    ran: list[Any] = []
    graph = order(ran).add_node("end", lambda _state: {"log": ["end"]})
    graph.add_conditional_edges("pay", then, ["end", "pay"])
    policy = f'{ALL_BUT_ANA} tool "then__from__pay" {{ should deny always; }}'
    executor = asking(local, graph, policy, saver)
    state = executor.invoke({"to": "ana"}, thread())
    asked = [request_of(state)["action_requests"][0]["name"]]
    state = answer(executor, state, APPROVE.resume, by_id=False, to="bob")
    for _ in range(2):
        asked.append(request_of(state)["action_requests"][0]["name"])
        state = answer(executor, state, APPROVE.resume, by_id=False)
    assert asked == ["then__from__pay", "pay", "then__from__pay"]
    assert ran == [("ana", None), ("bob", None)]
    assert state["log"] == ["bob", "end"]


def test_equal_calls_need_an_approval_each(local: LocalServer, saver: Any) -> None:
    def more(state: Order) -> str:
        return "pay" if len(state["log"]) < 3 else "__end__"

    ran: list[Any] = []
    graph = order(ran).add_conditional_edges("pay", more, ["pay", "__end__"])

    def run(given: Any) -> Any:  # as another process
        return asking(local, graph, SOFT, saver).invoke(given, thread())

    digests = {request_of(run(one))["digest"] for one in ({"to": "ada"}, APPROVE, APPROVE)}
    assert run(APPROVE)["log"] == ["ada"] * 3
    assert len(digests) == len(ran) == 3


def test_a_rejection_ends_the_tasks_that_wait_beside_it(local: LocalServer) -> None:
    graph = traced(pay=visit("pay"), send=visit("send"))
    connect(graph, "__start__>pay", "__start__>send")
    executor = asking(local, graph, SOFT)
    executor.invoke({}, thread())
    with pytest.raises(PolicyDenied, match="Too much"):
        executor.invoke(REJECT, thread())


class _AnyOrder(InMemorySaver):
    """Gives back the writes of an open step in an order of its own, as some databases do."""

    def __init__(self, *, newest_first: bool) -> None:
        super().__init__()
        self._newest_first = newest_first

    def get_tuple(self, config: Any) -> Any:
        saved = super().get_tuple(config)
        if saved is None or not saved.pending_writes:
            return saved
        by_task = dict.fromkeys(task for task, _, _ in saved.pending_writes)
        tasks = list(by_task)[:: -1 if self._newest_first else 1]
        writes = [one for task in tasks for one in saved.pending_writes if one[0] == task]
        return saved._replace(pending_writes=writes)


@pytest.mark.parametrize("newest_first", [False, True])
def test_the_newest_run_of_a_step_counts_in_whatever_order_its_records_come(
    local: LocalServer, *, newest_first: bool
) -> None:
    ran: list[str] = []

    class State(TypedDict, total=False):
        to: str
        log: Annotated[list[str], operator.add]

    def pay(state: State) -> State:
        ran.append(f"{interrupt('?')} {state['to']}")
        return {"log": [state["to"]]}

    graph: Any = StateGraph(State)
    graph.add_node("pay", pay).add_edge(START, "pay")
    graph.add_conditional_edges("pay", lambda one: "pay" if len(one["log"]) < 3 else END)
    policy = 'tool "pay" { should deny when to.value == "bo"; }'
    executor = asking(local, graph, policy, _AnyOrder(newest_first=newest_first))
    executor.invoke({"to": "bo", "log": []}, thread())  # asks for approval
    executor.invoke(Command(resume=APPROVE.resume, update={"to": "di"}), thread())  # a new run
    for number in range(3):
        ended = executor.invoke(Command(resume=str(number)), thread())
    assert ran == ["0 di", "1 di", "2 di"]
    assert ended["log"] == ["di"] * 3
