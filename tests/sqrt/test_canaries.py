"""Planted texts in the results of tools, and what a policy does with them."""

import json
from typing import Any

import pytest
from langchain_core.tools import tool

from langchain_sequrity import labeled_tool_result
from langchain_sequrity.canaries import plant_canaries
from langchain_sequrity.errors import UsageError
from langchain_sequrity.sqrt import CanaryReport, find_canaries

POLICY = """
    let house = {str matching r"^[a-z]+@house[.]example$"};
    tool "read_mails" {
        result { @tags |= {"foreign"}; }
        session after { @tags |= {"has read"}; }
    }
    tool r"^read_mails/(id|from)$" -> @tags -= {"foreign"};
    tool "send_mail" {
        must deny when "foreign" in to.tags;
        must deny when "foreign" in text.tags and not to.value in house;
    }
    tool "delete_all" { must deny when "has read" in @session.tags; }
    tool "read_secret" { must deny always; }
"""


class Office:
    """A fake environment with places in which others write."""

    def __init__(self) -> None:
        self.mails: list[dict[str, Any]] = [{"id": 1, "from": {"name": "Ana"}, "body": ["Hi"]}]
        self.page = "Welcome"
        self.sent: list[str] = []

    def tools(self) -> list[Any]:
        def read_mails() -> list[dict[str, Any]]:
            """Read all mails."""
            return self.mails

        def read_page(url: str) -> str:
            """Read a page."""
            return f"{url}: {self.page}"

        def send_mail(to: str, text: str) -> str:
            """Send a mail."""
            self.sent.append(f"{to}: {text}")
            return "sent"

        def delete_all(reason: str) -> str:
            """Delete all."""
            return f"deleted: {reason}"

        def today() -> str:
            """Tell the day."""
            return "Monday"

        return [read_mails, read_page, send_mail, delete_all, today]

    def places(self) -> dict[str, Any]:
        return {
            "body": lambda text: self.mails.append({"id": 2, "body": [f"Buy {text.upper()}!"]}),
            "name": lambda text: self.mails.append({"id": 3, "from": {"name": text}}),
            "page": lambda text: setattr(self, "page", f"Pay <{text}>"),
        }


@pytest.fixture(scope="module")
def report() -> CanaryReport:
    office = Office()
    calls: list[Any] = [
        {"tool": "read_mails"},
        {"tool": "read_page", "arguments": {"url": "a.example"}},
    ]
    return plant_canaries(office.tools(), office.places(), POLICY, calls=calls)


def test_a_report_names_the_fields_that_return_planted_texts(report: CanaryReport) -> None:
    assert [(canary.planted_in, canary.name) for canary in report.canaries] == [
        ("body", "read_mails/body"), ("name", "read_mails/from/name"), ("page", "read_page"),
    ]  # fmt: skip


def test_fields_without_labels_are_open_also_those_that_a_rule_trusts(report: CanaryReport) -> None:
    assert [canary.name for canary in report.open] == ["read_mails/from/name", "read_page"]
    assert "3 fields returned planted texts, 2 of them without labels" in str(report)


def test_a_report_says_which_arguments_accept_such_values(report: CanaryReport) -> None:
    body, name, page = report.canaries
    assert body.labels.tags >= {"foreign"}
    assert body.accepted_by == ("read_page.url",)  # and nothing is deleted after a read
    assert body.depends == ("send_mail.text",)  # on the receiver
    assert name.accepted_by == ("read_page.url", "send_mail.to", "send_mail.text")
    assert page.accepted_by == (*name.accepted_by, "delete_all.reason")


def test_by_default_tools_that_need_no_arguments_are_called() -> None:
    office = Office()
    found = plant_canaries(office.tools(), office.places(), POLICY)
    assert found.clean == ("today",)
    assert found.not_called == ("read_page", "send_mail", "delete_all")
    assert found.not_found == ("page",)
    assert office.sent == []
    assert "Returned by no tool: the texts planted in page." in str(found)


def test_a_call_that_the_policy_denies_is_not_open() -> None:
    (secret,) = find_canaries([("read_secret", "canary1")], {"x": "canary1"}, POLICY).canaries
    assert (secret.is_denied, secret.is_open, secret.accepted_by) == (True, False, ())


def test_labels_of_the_tool_itself_count() -> None:
    planted: list[str] = []

    @tool(response_format="content_and_artifact")
    def read_note() -> Any:
        """Read a note."""
        return labeled_tool_result(str(planted), tags=["foreign"])

    (note,) = plant_canaries([read_note], {"note": planted.append}).canaries
    assert "foreign" in note.labels.tags
    assert not note.is_open


def test_without_a_policy_everything_is_open() -> None:
    calls: list[Any] = [{"tool": "send", "arguments": {"to": "ana"}}, ("read", "canary1")]
    (found,) = find_canaries(calls, {"x": "canary1"}).canaries
    assert (found.is_open, found.accepted_by) == (True, ("send.to",))


PATHS: list[tuple[Any, list[str]]] = [
    ("x CANARY1 y", ["read"]),
    (json.dumps({"a": {"b": ["no", "canary1"]}}), ["read/a/b"]),
    ([{"a/b~c": "canary1"}, {"d": 1}, {"d": "canary1"}], ["read/a~1b~0c", "read/d"]),
    ({"canary1": 1}, ["read"]),
    ({"a": {"canary1": 1}}, ["read/a"]),
    ([["canary1"], 1, None, "canary2"], ["read"]),
    ({"a": "canary", "b": 1}, []),
]


@pytest.mark.parametrize(("value", "names"), PATHS)
def test_paths_are_those_of_rules_for_fields(value: Any, names: list[str]) -> None:
    found = find_canaries([("read", value)], {"x": "canary1"}).canaries
    assert [canary.name for canary in found] == names


@pytest.mark.parametrize("planted", [{}, {"a": " "}, {"a": 1}, ["canary"]])
def test_planted_texts_have_to_be_texts_by_place(planted: Any) -> None:
    with pytest.raises(UsageError, match="Expected the planted texts by the name of their place"):
        find_canaries([("a", "b")], planted)


def test_calls_of_other_tools_are_refused() -> None:
    with pytest.raises(UsageError, match="there is no tool `x`"):
        plant_canaries([], {"a": print}, calls=[{"tool": "x"}])


def test_a_report_is_shown_in_notebooks_and_as_json(report: CanaryReport) -> None:
    assert "<table>" in report._repr_html_()
    first, *_ = json.loads(json.dumps(report.to_json()))["canaries"]
    assert (first["field"], first["open"]) == ("body", False)
