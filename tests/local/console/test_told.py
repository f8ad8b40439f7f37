"""The console says that a planner was not told a result only if that is true."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_sequrity.local import LocalServer
from langchain_sequrity.local.console.told import Told
from tests.local.api import Api, call_ids, result, session_of, tool
from tests.local.dual_llm.dialog import headers

ENCODINGS: dict[str, Callable[[str], str]] = {
    "as it is": lambda text: text,
    "JSON": json.dumps,
    "JSON in characters": lambda text: json.dumps(text, ensure_ascii=False),
    "Python": repr,
    "ASCII of Python": ascii,
    "JSON in JSON": lambda text: json.dumps(json.dumps(text)),
    "indented JSON": lambda text: json.dumps({"value": [text]}, indent=2),
}
SECRET = 'The "code" is:\n\t42\\7, \u00fcber \U0001f600'


@pytest.mark.parametrize("encoding", ENCODINGS)
@given(text=st.text(min_size=1, max_size=60))
def test_a_text_that_is_in_a_message_was_told(encoding: str, text: str) -> None:
    assert Told.of_messages([f"Before: {ENCODINGS[encoding](text)} after"]).has_part_of(text)


@given(text=st.text(min_size=23), data=st.data())
def test_23_characters_of_a_text_are_a_part_of_it(text: str, data: st.DataObject) -> None:
    begin = data.draw(st.integers(0, len(text) - 23))
    assert Told.of_messages([f"It begins: {text[begin : begin + 23]}…"]).has_part_of(
        {"key": [text]}
    )


@pytest.mark.parametrize("value", [4711, {"amount": 4711}, ["x", 4711], {"4711": None}, 4711.5])
def test_numbers_and_keys_inside_a_value_are_parts_of_it(value: Any) -> None:
    assert Told.of_messages(["amount = 4711.5"]).has_part_of(value)
    assert not Told.of_messages(["nothing of it"]).has_part_of(value)


def test_nothing_of_a_value_was_told_if_no_message_has_it() -> None:
    assert not Told.of_messages(["Variables: found: str of length 30"]).has_part_of(SECRET)
    assert not Told.of_messages(["None, True and nothing"]).has_part_of([None, True, "", {}])


def test_words_of_the_request_are_not_those_of_a_result() -> None:
    request = ["Sum the invoices of Carl: text, from, 45"]
    mails = [{"from": "Carl", "text": "Invoice 12", "euros": 45}]
    assert not Told.of_messages(request, request).has_part_of(mails)
    later = [*request, "The variable has Invoice 12"]
    assert Told.of_messages(later, request).has_part_of(mails)


def test_a_longer_part_counts_whenever_it_was_told() -> None:
    history = [f"Earlier: {SECRET}"]
    assert Told.of_messages(history, history).has_part_of([SECRET])


def _page(answer: str, config: dict[str, Any]) -> str:
    programs = iter(
        ["found = look_up(word='a')\n1 / 0", "found = look_up(word='a')\nfinal_return_value = 1"]
    )
    script = [
        {"when": {"role": "planner"}, "answer": lambda _: next(programs, "final_return_value = 2")}
    ]
    with (
        LocalServer(script=script, isolated_programs=False) as server,
        httpx.Client(timeout=10, trust_env=False) as http,
    ):
        api = Api(server, http, "sq-test")
        tools = [tool()]
        first = api.chat("Go", tools=tools, headers=headers(config=config))
        session = session_of(first)
        ended = api.chat(result(call_ids(first)[0], answer), tools=tools, session=session)
        assert ended.status_code == 200, ended.text
        assert api.chat("On", tools=tools, session=session).status_code == 200
        url, _, secret = server.console_url.partition("?token=")
        path = f"{url}/sessions/{session}/turns/1"
        return http.get(path, headers={"Authorization": f"Bearer {secret}"}).text


def test_a_result_that_a_later_planner_is_shown_is_not_called_untold() -> None:
    shown = {"prompt": {"pllm": {"context_var_visibility": "all"}}}
    hidden = {"prompt": {"pllm": {"context_var_visibility": "none"}}}
    pages = {True: _page(SECRET, hidden), False: _page(SECRET, shown)}
    for is_untold, page in pages.items():
        assert ("the result of <a" in page) is is_untold
