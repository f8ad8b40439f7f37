"""Keys of the model inside the tool are shown nowhere, kept in copies, left out of pickles."""

import copy
import io
import logging
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.load import dumps
from langchain_core.tracers.base import BaseTracer
from langchain_core.tracers.schemas import Run
from pydantic import ValidationError

from langchain_sequrity import ChatSequrity, PolicyHeader, SequrityMessages
from langchain_sequrity.errors import AuthenticationFailed, SequrityError, UsageError
from langchain_sequrity.policy_generation import BadPolicy, NoPolicy, PolicyGenTool
from tests.policy_generation.service import POLICY, Service, read_page, send_mail

Make = Callable[..., Any]
KEY, LLM_KEY, HEADER_SECRET = "sq-secret-key-1", "llm-secret-key-2", "header-secret-3"
SECRETS = (KEY, LLM_KEY, HEADER_SECRET)
HIDDEN = {
    "api_key": KEY,
    "llm_api_key": LLM_KEY,
    "default_headers": {"X-Proxy-Token": HEADER_SECRET},
}
KINDS = [ChatSequrity, SequrityMessages]


@pytest.fixture(autouse=True)
def _no_keys_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SEQURITY_API_KEY", "SEQURITY_LLM_API_KEY", "SEQURITY_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


class KeepAll(BaseTracer):
    """Stores every run in the form that a tracer sends."""

    def __init__(self) -> None:
        super().__init__()
        self.runs: list[Run] = []

    def _persist_run(self, run: Run) -> None:
        self.runs.append(run)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bound", [False, True])
def test_no_secret_is_shown_anywhere(
    service: Service, make: Make, caplog: pytest.LogCaptureFixture, kind: Any, bound: bool
) -> None:
    caplog.set_level(logging.DEBUG)
    model, tracer, shown = make(kind, **HIDDEN), KeepAll(), io.StringIO()
    made = (
        PolicyGenTool(model.bind_tools([send_mail])) if bound else PolicyGenTool(model, [send_mail])
    )
    made.invoke({"description": "x"}, {"callbacks": [tracer]})
    echo = f"Bearer {KEY} {LLM_KEY} {HEADER_SECRET}"
    for answer, expected in (
        ({"status": 401, "body": {"detail": echo, "sent": [LLM_KEY]}}, AuthenticationFailed),
        ({"text": f'tool "{echo}" {{ must deny always; }}'}, BadPolicy),
        ({"text": echo}, BadPolicy),
        ({"status": 422, "body": {"detail": echo}}, NoPolicy),
    ):
        service.answer(**answer)
        with pytest.raises(expected) as caught:
            made.invoke({"description": "x"}, {"callbacks": [tracer]})
        assert "***" in str(caught.value)
        error: BaseException | None = caught.value
        print(pickle.dumps(error), file=shown)
        while error is not None:
            print(repr(error), vars(error), file=shown)
            error = error.__cause__ or error.__context__
    print(repr(made), str(made), made.model_dump(), dumps(made), pickle.dumps(made), file=shown)
    print([(run.model_dump_json(), run.error) for run in tracer.runs], caplog.text, file=shown)
    assert len(tracer.runs) == 5
    assert [secret for secret in SECRETS if secret in shown.getvalue()] == []


@pytest.mark.parametrize(
    "wrong", [{"n_retries": KEY}, {"internal_tool_names": [0, KEY]}, {"handle_tool_error": [KEY]},
              {"default_headers": [KEY]}, {"aip_key": KEY}],
)  # fmt: skip
def test_a_wrong_argument_does_not_show_its_value(make: Make, wrong: dict[str, Any]) -> None:
    with pytest.raises((ValidationError, SequrityError)) as caught:
        make(PolicyGenTool, [send_mail], **wrong)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("used", [False, True])
def test_copies_work_before_and_after_use(service: Service, make: Make, used: bool) -> None:
    made = PolicyGenTool(make(**HIDDEN), [send_mail])
    if used:
        made.invoke("x")
        assert made.tool_call_schema
    for other in (
        copy.copy(made),
        copy.deepcopy(made),
        made.model_copy(),
        made.model_copy(deep=True),
    ):
        assert other.generate("x") == PolicyHeader.from_sqrt(POLICY)
        headers = service.requests[-1].headers
        assert headers["authorization"] == f"Bearer {KEY}"
        assert headers["x-api-key"] == LLM_KEY
        assert headers["x-proxy-token"] == HEADER_SECRET


def test_a_copy_with_changes_is_checked_like_a_new_tool(service: Service, make: Make) -> None:
    made = PolicyGenTool(make(**HIDDEN), [send_mail], n_retries=1, handle_tool_error=True)
    other = made.model_copy(update={"tools": [read_page]})
    service.answer('tool "read_page" { must deny always; }')
    other.generate("x")
    assert service.bodies[-1]["n_retries"] == 1
    assert other.handle_tool_error is True
    assert service.requests[-1].headers["authorization"] == f"Bearer {KEY}"
    moved = made.model_copy(update={"model": make(SequrityMessages).bind_tools([])})
    service.answer()
    moved.generate("x")
    assert service.bodies[-1]["type"] == "anthropic_messages"
    refused: list[dict[str, Any]] = [{"tools": [5]}, {"tools": []}, {"nonsense": 1}]
    for wrong in refused:
        with pytest.raises(UsageError):
            made.model_copy(update=wrong)


@pytest.mark.parametrize("used", [False, True])
def test_a_pickle_contains_no_key_and_unpickling_reads_it_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, service: Service, make: Make, used: bool
) -> None:
    made = PolicyGenTool(make(**HIDDEN), [send_mail])
    if used:
        made.invoke("x")
        assert made.tool_call_schema
    data = pickle.dumps(made)
    assert [secret for secret in SECRETS if secret.encode() in data] == []
    monkeypatch.setenv("SEQURITY_API_KEY", KEY)
    restored = pickle.loads(data)
    with pytest.raises(UsageError, match=r"`llm_api_key`, `default_headers`, `http_client`"):
        restored.generate("x")
    whole = restored.model_copy(update={"model": make(api_key=KEY)})
    assert whole.generate("x") == PolicyHeader.from_sqrt(POLICY)
    assert service.requests[-1].headers["authorization"] == f"Bearer {KEY}"


def test_a_pickled_tool_whose_model_has_only_keys_uses_those_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = pickle.dumps(PolicyGenTool("any/model", [send_mail], api_key=KEY))
    monkeypatch.setenv("SEQURITY_API_KEY", LLM_KEY)
    restored = pickle.loads(data)
    (name, value) = next(
        header
        for header in restored._call(restored._request("x")).headers
        if header[0] == b"Authorization"
    )
    assert (name, value) == (b"Authorization", f"Bearer {LLM_KEY}".encode())
