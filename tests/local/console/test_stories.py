"""What people do with the console, through its pages alone."""

import asyncio
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from langchain.agents import create_agent
from langchain_core.messages import BaseMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from playwright.sync_api import Locator, Page, expect

from langchain_sequrity import ChatSequrity, ConsoleReview
from langchain_sequrity.local import ApiKey, LocalServer
from langchain_sequrity.sqrt import parse
from tests.local.console import traffic
from tests.local.console.chromium import OpenPage, assert_clean, incidents, settle
from tests.local.console.traffic import POLICY, converse

_MILLISECONDS = 20_000
"""How long a page may take until it shows what it has to show."""
MEND = POLICY.replace('overlaps {"mail"}', 'overlaps {"spam"}')

Visit = Callable[..., Page]


@pytest.fixture
def server() -> Iterator[LocalServer]:
    """A server of the test's own, so that its console shows nothing else."""
    with LocalServer(script=traffic.SCRIPT) as running:
        yield running


@pytest.fixture
def visit(open_page: OpenPage) -> Iterator[Visit]:
    """Opens the console, or a page of it. At the end, each page must be clean."""
    expect.set_options(timeout=_MILLISECONDS)
    opened: list[Page] = []

    def visit(server: LocalServer, link: str = "", **options: Any) -> Page:
        page = open_page(server.base_url, **options)
        page.set_default_timeout(_MILLISECONDS)
        page.goto(server.console_url)
        if link:
            page.get_by_role("link", name=link).first.click()
        opened.append(page)
        return page

    yield visit
    for page in opened:
        assert_clean(page)


def row(page: Page, request: str) -> Locator:
    """A session in the list."""
    return page.get_by_role("list", name="Sessions").get_by_role("link", name=request)


def section(page: Page, heading: str) -> Locator:
    """A part of a page, by its heading."""
    return page.get_by_role("region", name=heading, exact=True)


def open_call(page: Page, tool: str) -> Locator:
    """The details of a call."""
    call = section(page, "Calls").get_by_role("listitem").filter(has_text=tool).last
    if not call.get_by_role("table").is_visible():
        call.get_by_text(tool, exact=True).click()
    return call


# Sessions


def test_a_denial_appears_while_i_watch_the_list(server: LocalServer, visit: Visit) -> None:
    page = visit(server)
    expect(page.get_by_role("heading", name="No session yet")).to_be_visible()
    converse(server, "Reply to the first mail")
    expect(row(page, "Reply to the first mail")).to_contain_text("1 denied")


@pytest.mark.long
def test_a_click_is_not_lost_when_news_come_meanwhile(server: LocalServer, visit: Visit) -> None:
    converse(server, "Sum the invoices")
    page = visit(server)
    link = row(page, "Sum the invoices")
    box = link.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 20, box["y"] + 10)
    page.mouse.down()
    with page.expect_response(lambda reply: reply.url.endswith("/console")):
        converse(server, "Reply to the first mail")
    page.wait_for_timeout(100)  # the reply would have replaced the list
    page.mouse.up()
    expect(page.get_by_role("heading", name="Sum the invoices")).to_be_visible()


def test_leaving_a_field_of_the_search_does_not_load_the_list_again(
    server: LocalServer, visit: Visit
) -> None:
    converse(server, "Sum the invoices")
    page = visit(server)
    page.get_by_label("Verdict").select_option("denied")
    expect(page.get_by_role("heading", name="Nothing matches")).to_be_visible()
    page.get_by_label("Verdict").select_option("")
    expect(row(page, "Sum the invoices")).to_be_visible()
    page.get_by_label("Tool").fill("nothing")
    expect(page.get_by_role("heading", name="Nothing matches")).to_be_visible()
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.keyboard.press("Tab")
    settle(page)
    assert not [url for url in requests if "tool=nothing" in url]  # the icon may come late


@pytest.mark.long
def test_an_empty_console_says_how_sessions_come(server: LocalServer, visit: Visit) -> None:
    page = visit(server)
    expect(page.get_by_role("main")).to_contain_text("as soon as a client calls the server")
    for link, text in {
        "Approvals": "Nothing waits for a decision",
        "Activity": "No call was denied.",
    }.items():
        page.get_by_role("link", name=link).click()
        expect(page.get_by_role("main")).to_contain_text(text)


@pytest.mark.long
def test_a_running_turn_shows_its_calls_as_they_come(server: LocalServer, visit: Visit) -> None:
    chat = traffic.model(server)
    history: list[BaseMessage] = [HumanMessage("Sum the invoices")]
    first = traffic.answer(chat, history).tool_calls
    page = visit(server, "Sum the invoices")
    calls = section(page, "Calls")
    expect(page.get_by_text("waits for a tool")).to_be_visible()
    expect(calls).to_contain_text("read_inbox")
    expect(calls).not_to_contain_text("send_mail")
    history += map(traffic.run_tool, first)
    second = traffic.answer(chat, history).tool_calls
    expect(calls).to_contain_text("send_mail")
    history += map(traffic.run_tool, second)
    traffic.answer(chat, history)
    expect(section(page, "Reply")).to_contain_text("Invoices of this week: 115 euros")
    expect(page.get_by_text("answered")).to_be_visible()


SEARCHES: dict[str, tuple[dict[str, str], list[str]]] = {
    "a word of a request": ({"Text": "invoices"}, ["Sum the invoices"]),
    "a word of a result": ({"Text": "carl@"}, ["Reply to Eve", "Sum the invoices"]),
    "a tool": ({"Tool": "send"}, ["Reply to Eve", "Sum the invoices"]),
    "a verdict": ({"Verdict": "soft denied"}, ["Reply to Eve"]),
    "a label": ({"Label": "mail"}, ["Reply to Eve", "Sum the invoices"]),
    "a label of a result": (
        {"Tool": "read_inbox", "Label": "mail"},
        ["Reply to Eve", "Sum the invoices"],
    ),
    "a key": ({"Key": "bob"}, ["Hello"]),
    "several": ({"Text": "eve", "Tool": "send_mail", "Verdict": "denied"}, ["Reply to Eve"]),
    "several of different calls": ({"Tool": "read_inbox", "Verdict": "denied"}, []),
}


@pytest.fixture(scope="module")
def busy_server() -> Iterator[LocalServer]:
    """A server of three keys that has answered three requests."""
    keys = dict(ApiKey.new(name) for name in ("alice", "bob"))
    console_key, secret = ApiKey.new("carol", console=True)
    with LocalServer(script=traffic.SCRIPT, api_keys=[*keys, console_key]) as running:
        alice, bob = keys.values()
        converse(running, "Sum the invoices", api_key=alice)
        converse(running, "Reply to Eve", api_key=alice)
        converse(running, "Hello", api_key=bob)
        running.secret = secret  # type: ignore[attr-defined] # for the test of the login
        yield running


def search(page: Page, fields: dict[str, str]) -> None:
    form = page.get_by_role("search")
    for label, value in fields.items():
        field = form.get_by_label(label)
        if label == "Verdict":
            field.select_option(value)
        else:
            field.fill(value)


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("name", SEARCHES)
def test_i_find_sessions_by(name: str, busy_server: LocalServer, visit: Visit) -> None:
    fields, requests = SEARCHES[name]
    page = visit(busy_server)
    search(page, fields)
    sessions = page.get_by_role("list", name="Sessions").get_by_role("link")
    expect(sessions).to_have_count(len(requests))
    for request in requests:
        expect(row(page, request)).to_be_visible()
    if not requests:
        expect(page.get_by_role("heading", name="Nothing matches")).to_be_visible()


@pytest.mark.long
def test_back_and_forward_keep_the_search(busy_server: LocalServer, visit: Visit) -> None:
    page = visit(busy_server)
    search(page, {"Verdict": "denied"})
    expect(row(page, "Hello")).to_have_count(0)
    row(page, "Reply to Eve").click()
    expect(page.get_by_role("heading", name="Reply to Eve")).to_be_visible()
    page.go_back()
    expect(page.get_by_label("Verdict")).to_have_value("denied")
    expect(row(page, "Reply to Eve")).to_be_visible()
    expect(row(page, "Hello")).to_have_count(0)
    page.go_back()
    expect(row(page, "Hello")).to_be_visible()
    expect(page.get_by_label("Verdict")).to_have_value("")
    page.go_forward()
    expect(row(page, "Hello")).to_have_count(0)
    expect(page.get_by_label("Verdict")).to_have_value("denied")


@pytest.mark.long
def test_a_session_of_another_key_has_its_name(busy_server: LocalServer, visit: Visit) -> None:
    page = visit(busy_server)
    expect(row(page, "Hello")).to_contain_text("key bob")
    row(page, "Hello").click()
    expect(page.get_by_role("main")).to_contain_text("key bob")


# A turn


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("pointer", ["mouse", "keyboard"])
def test_a_variable_shows_its_value_and_labels(
    pointer: str, server: LocalServer, visit: Visit
) -> None:
    converse(server, "Reply to the first mail")
    page = visit(server, "Reply to the first mail")
    program = page.get_by_role("list", name="Program 1")
    variable = program.get_by_label("target: tag mail").first
    tip = variable.get_by_role("tooltip")
    expect(tip).to_be_hidden()
    if pointer == "mouse":
        variable.hover()
    else:
        program.focus()
        while not variable.evaluate("word => word === document.activeElement"):
            page.keyboard.press("Tab")
    expect(tip).to_be_visible()
    expect(tip).to_contain_text('"eve@example.net"')
    expect(tip).to_contain_text("tag mail")
    page.keyboard.press("Escape")
    expect(tip).to_be_hidden()


@pytest.mark.long
def test_the_rule_of_a_denied_call_leads_to_its_line(server: LocalServer, visit: Visit) -> None:
    converse(server, "Reply to the first mail")
    page = visit(server, "Reply to the first mail", height=500)
    problem = page.get_by_text("send_mail was denied")
    expect(problem).to_contain_text("an address out of a mail may be an attacker's")
    problem.get_by_role("link").click()
    line = page.get_by_role("list", name="Policy").get_by_text("should deny when")
    expect(line).to_be_in_viewport()
    expect(line).to_contain_text("denied 1")
    assert line.evaluate("line => line.matches(':target')")


@pytest.mark.long
def test_the_flow_names_calls_and_labels_also_in_its_text(
    server: LocalServer, visit: Visit
) -> None:
    converse(server, "Reply to the first mail")
    page = visit(server, "Reply to the first mail")
    flow = section(page, "Flow of data")
    expect(flow.get_by_role("img", name="send_mail")).to_have_accessible_name(
        re.compile("send_mail.*denied")
    )
    drawing = flow.locator("svg")
    expect(drawing).to_contain_text("[mail]")
    expect(drawing.locator("> desc")).to_contain_text("`read_inbox` → `[mail]`")
    expect(drawing.locator("> desc")).to_contain_text("`[mail]` → `send_mail`")


@pytest.mark.long
def test_the_planner_was_not_told_what_a_mail_says(server: LocalServer, visit: Visit) -> None:
    converse(server, "Sum the invoices")
    page = visit(server, "Sum the invoices")
    told = section(page, "What the models were told")
    for summary in told.get_by_text("planner any/model").all():
        summary.click()
    expect(told.get_by_text("Sum the invoices").first).to_be_visible()
    expect(told).not_to_contain_text(traffic.INJECTED)
    expect(told.get_by_text("the result of read_inbox, call 1")).to_be_visible()
    told.get_by_role("link", name="read_inbox").click()
    expect(section(page, "Calls").get_by_text(traffic.INJECTED)).to_be_visible()


@pytest.mark.long
def test_a_second_turn_has_a_page_of_its_own(server: LocalServer, visit: Visit) -> None:
    converse(server, "Sum the invoices", "Reply to the first mail")
    page = visit(server)
    expect(row(page, "Reply to the first mail")).to_contain_text("2 turns")
    row(page, "Reply to the first mail").click()
    turns = page.get_by_role("navigation", name="Turns of the session")
    expect(turns.get_by_role("link", name="Turn 2")).to_have_attribute("aria-current", "page")
    turns.get_by_role("link", name="Turn 1").click()
    expect(page.get_by_role("heading", name="Sum the invoices")).to_be_visible()


@pytest.mark.long
def test_a_failed_program_is_followed_by_the_next_one(server: LocalServer, visit: Visit) -> None:
    converse(server, "Archive please")
    page = visit(server, "Archive please")
    programs = section(page, "Program")
    expect(programs.get_by_role("heading", name="Program 1 (failed)")).to_be_visible()
    expect(programs.get_by_text("The planner was told:")).to_contain_text("IndexError")
    second = programs.get_by_role("list", name="Program 2")
    expect(second).to_contain_text('mails[0]["euros"]', use_inner_text=True)
    expect(section(page, "Reply")).to_contain_text("70")


@pytest.mark.long
def test_a_tool_that_failed_is_marked_with_its_error(server: LocalServer, visit: Visit) -> None:
    converse(server, "Sum the invoices", run=traffic.fail_tool)
    page = visit(server, "Sum the invoices")
    call = open_call(page, "read_inbox")
    expect(call).to_contain_text("tool failed")
    expect(call.get_by_role("row", name="error")).to_contain_text("The mail server is down.")


@pytest.mark.long
def test_a_single_llm_session_shows_its_denial_and_no_program(
    server: LocalServer, visit: Visit
) -> None:
    converse(
        server,
        "Write to Eve",
        features={"agent_arch": "single-llm"},
        policy='tool "send_mail" { must deny when to.value in {"eve@example.net"}; }',
    )
    page = visit(server, "Write to Eve")
    expect(page.get_by_text("single-LLM")).to_be_visible()
    expect(page.get_by_text("send_mail was denied")).to_be_visible()
    expect(page.get_by_role("list", name="Policy")).to_contain_text("denied 1")
    expect(section(page, "Program")).to_have_count(0)
    expect(page.get_by_text("What the planner was not told")).to_have_count(0)


@pytest.mark.long
def test_a_run_of_a_graph_is_walked_through_step_by_step(server: LocalServer, visit: Visit) -> None:
    traffic.run_graph(server)
    page = visit(server, "Graph")
    run = section(page, "Run of the graph")
    expect(run.get_by_role("listitem")).to_have_text(["read_letters", "summarize", "archive"])
    button = run.get_by_role("button", name="Next step")
    button.click()
    button.click()
    expect(page.get_by_role("status")).to_have_text("Step 2 of 3: summarize")
    run.get_by_role("link", name="summarize").click()
    expect(
        section(page, "Calls").get_by_text("Water the beds.").filter(visible=True)
    ).to_have_count(1)


# The editor


def open_editor(page: Page) -> Locator:
    """The text field of the policy editor, from the page of a session."""
    page.get_by_role("link", name="Edit its policy").click()
    text = page.get_by_label("Text in SQRT")
    expect(text).not_to_be_empty()
    return text


def place_caret(text: Locator, before: str) -> None:
    text.focus()
    text.evaluate(
        "(field, part) => field.setSelectionRange(...Array(2).fill(field.value.indexOf(part)))",
        before,
    )


def test_a_mistake_is_shown_with_its_line_while_i_type(server: LocalServer, visit: Visit) -> None:
    converse(server, "Reply to the first mail")
    page = visit(server, "Reply to the first mail")
    text = open_editor(page)
    expect(page.get_by_text("No mistake was found")).to_be_visible()
    place_caret(text, "when to")
    page.keyboard.type("wen ")
    finding = page.get_by_role("listitem").filter(has_text="found `wen`")
    expect(finding).to_contain_text("error")
    line = text.input_value().split("wen")[0].count("\n") + 1
    finding.get_by_role("button", name=f"line {line}").click()
    expect(text).to_be_focused()
    assert text.evaluate("field => field.selectionStart") == text.input_value().index("wen")
    page.keyboard.press("Delete")
    page.keyboard.press("Delete")
    page.keyboard.press("Delete")
    expect(page.get_by_text("No mistake was found")).to_be_visible()


COMPLETIONS = {
    "a tool": ('\ntool "se', "send_mail"),
    "an argument": ('\ntool "send_mail" { must deny when te', "text"),
    "a label": ('\ntool "send_mail" { must deny when to.tags overlaps {"ma', "mail"),
}


@pytest.mark.long
@pytest.mark.parametrize("name", COMPLETIONS)
def test_the_keyboard_completes(name: str, server: LocalServer, visit: Visit) -> None:
    typed, word = COMPLETIONS[name]
    converse(server, "Reply to the first mail")
    page = visit(server, "Reply to the first mail")
    text = open_editor(page)
    page.wait_for_load_state("networkidle")
    text.press("Control+End")
    page.keyboard.type(typed)
    option = page.get_by_role("listbox", name="Completions").get_by_role("option", name=word)
    expect(option.first).to_have_attribute("aria-selected", "true")
    expect(text).to_have_attribute("aria-expanded", "true")
    page.keyboard.press("Enter")
    expect(text).to_have_value(re.compile(re.escape(typed[: typed.rindex(word[:2])] + word) + "$"))
    expect(page.get_by_role("listbox")).to_be_hidden()


@pytest.mark.long
def test_escape_closes_the_completions_and_tab_leaves_the_text(
    server: LocalServer, visit: Visit
) -> None:
    page = visit(server, "Policy")
    text = page.get_by_label("Text in SQRT")
    text.press("Control+Space")
    expect(page.get_by_role("listbox")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("listbox")).to_be_hidden()
    expect(text).to_be_focused()
    page.keyboard.press("Tab")
    expect(text).not_to_be_focused()


def test_i_mend_a_rule_and_see_first_what_it_changes(server: LocalServer, visit: Visit) -> None:
    converse(server, "Reply to the first mail")
    page = visit(server, "Reply to the first mail")
    text = open_editor(page)
    text.fill(MEND)
    page.get_by_role("button", name="Run them again").click()
    result = section(page, "Run earlier calls again under this policy")
    expect(result).to_contain_text("1 of 2 calls would end differently")
    expect(result).to_contain_text("1 would be allowed")
    changed = result.get_by_role("row").nth(1)
    expect(changed).to_contain_text("send_mail")
    expect(changed).to_contain_text("soft denied")
    expect(changed).to_contain_text("allowed")
    expect(changed).to_contain_text("eve@example.net")


@pytest.mark.long
def test_the_calls_of_all_sessions_run_again(server: LocalServer, visit: Visit) -> None:
    converse(server, "Reply to the first mail")
    converse(server, "Sum the invoices")
    page = visit(server, "Reply to the first mail")
    open_editor(page).fill('tool "send_mail" { must deny always; }')
    page.get_by_label("Calls of").select_option("all 2 sessions")
    page.get_by_role("button", name="Run them again").click()
    result = section(page, "Run earlier calls again under this policy")
    expect(result).to_contain_text("1 of 4 calls would end differently")
    expect(result).to_contain_text("1 would be denied")
    expect(result).to_contain_text("1 would have another strength")


@pytest.mark.long
def test_the_calls_of_an_earlier_server_run_again_from_its_audit_log(
    tmp_path: Path, visit: Visit
) -> None:
    log = tmp_path / "audit.jsonl"
    with LocalServer(script=traffic.SCRIPT, audit_log=log) as earlier:
        converse(earlier, "Reply to the first mail")
    with LocalServer(audit_log=log) as server:
        page = visit(server, "Policy")
        page.get_by_label("Text in SQRT").fill(MEND)
        page.get_by_label("Calls of").select_option("the audit log")
        page.get_by_role("button", name="Run them again").click()
        result = section(page, "Run earlier calls again under this policy")
        expect(result).to_contain_text("1 of 2 calls would end differently")
        page.close()  # before its server stops


@pytest.mark.long
def test_a_policy_with_a_mistake_runs_nothing(server: LocalServer, visit: Visit) -> None:
    converse(server, "Reply to the first mail")
    page = visit(server, "Reply to the first mail")
    open_editor(page).fill('tool "send_mail" {')
    page.get_by_role("button", name="Run them again").click()
    expect(page.get_by_role("alert")).to_contain_text("line 1")


SAVED = 'tool "mail" {\n    /// "quotes", \\n, and ünïcode: \'\'\'\n    must deny always;\n}\n'


@pytest.mark.long
def test_a_policy_is_saved_as_the_file_that_i_see(server: LocalServer, visit: Visit) -> None:
    page = visit(server, "Policy")
    page.get_by_label("Text in SQRT").fill(SAVED)
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as a file").click()
    assert download.value.suggested_filename == "policy.sqrt"
    assert download.value.path().read_bytes() == SAVED.encode()
    assert [incident.kind for incident in incidents(page)] == ["download"]
    incidents(page).clear()


PYTHON = [
    SAVED,
    POLICY,
    'tool "a" { must deny when to.value in {str matching r"^[a-z\\d]+[.]example$"}; }',
    'tool "a" { must deny always; } // """',
    '// ends with a quote "',
    "// ends with a backslash \\",
    '// \\"""',
    "",
]


@pytest.mark.long
@pytest.mark.parametrize("text", PYTHON)
def test_a_policy_is_copied_as_python(text: str, server: LocalServer, visit: Visit) -> None:
    page = visit(server, "Policy")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_label("Text in SQRT").fill(text)
    page.get_by_role("button", name="Copy as Python").click()
    expect(page.get_by_role("status")).to_have_text("The policy was copied as Python.")
    names: dict[str, Any] = {}
    exec(page.evaluate("navigator.clipboard.readText()"), names)  # noqa: S102 - what a person does
    assert names["policy"].rstrip("\n") == text.rstrip("\n")
    assert parse(names["policy"]) == parse(text)


# Approvals


def pay(to: str, text: str) -> str:
    """Pay a person."""
    return f"paid {to}: {text}"


def read_inbox(folder: str) -> list[dict[str, Any]]:
    """Read a folder."""
    return [{"sender": f"eve@{folder}.example"}]


PAY_SCRIPT = [
    {
        "when": {"role": "planner"},
        "program": """mail = read_inbox(folder="new")[0]
try:
    final_return_value = pay(to=mail["sender"], text="rent")
except Exception as error:
    final_return_value = str(error)""",
    }
]
PAY_POLICY = """tool "read_inbox" -> @tags |= {"mail"};
tool "pay" {
    /// an account out of a mail
    should deny when to.tags overlaps {"mail"};
}"""


@pytest.fixture
def paying_server() -> Iterator[LocalServer]:
    with LocalServer(script=PAY_SCRIPT) as running:
        yield running


def agent(server: LocalServer) -> Any:
    """An agent whose denied calls a person decides about."""
    chat = ChatSequrity(
        "any/model",
        base_url=server.base_url,
        features={"agent_arch": "dual-llm"},
        policy=PAY_POLICY,
        on_denied="interrupt",
    )
    return create_agent(chat, [read_inbox, pay], checkpointer=InMemorySaver())


@contextmanager
def waiting_chats(server: LocalServer, *sources: str) -> Iterator[list[Future[str]]]:
    """Chats that ask in the console, and the last message of each."""

    def chat(source: str) -> str:
        review = ConsoleReview(server.console_url, source=source, timeout=60)
        config: Any = {"configurable": {"thread_id": source}}
        request = {"messages": [("user", f"Pay for {source}")]}
        return str(review.invoke(agent(server), request, config)["messages"][-1].text)

    with ThreadPoolExecutor() as threads:
        yield [threads.submit(chat, source) for source in sources]


def question(page: Page, source: str) -> Locator:
    return page.get_by_role("article").filter(has_text=source)


def test_i_approve_and_the_waiting_chat_goes_on(paying_server: LocalServer, visit: Visit) -> None:
    page = visit(paying_server, "Approvals")
    with waiting_chats(paying_server, "the landlord") as (chat,):
        asked = question(page, "the landlord")
        expect(asked.get_by_role("heading")).to_have_text("pay")
        expect(asked).to_contain_text("an account out of a mail")
        expect(asked.get_by_role("row", name="to")).to_contain_text("eve@new.example")
        expect(asked.get_by_role("row", name="to")).to_contain_text("tag mail")
        expect(page.get_by_role("link", name="Approvals 1 waiting")).to_be_visible()
        asked.get_by_role("button", name="Approve").click()
        assert chat.result() == "paid eve@new.example: rent"
    expect(page.get_by_role("heading", name="Nothing waits for a decision")).to_be_visible()
    expect(page.get_by_role("listitem").filter(has_text="pay")).to_contain_text("approved")


@pytest.mark.long
def test_i_reject_with_a_message_and_the_agent_gets_it(
    paying_server: LocalServer, visit: Visit
) -> None:
    page = visit(paying_server, "Approvals")
    with waiting_chats(paying_server, "the landlord") as (chat,):
        asked = question(page, "the landlord")
        asked.get_by_label("Message for the agent").fill("Ask her by telephone.")
        asked.get_by_role("button", name="Reject").click()
        assert "Ask her by telephone." in chat.result()
    expect(page.get_by_role("listitem").filter(has_text="pay")).to_contain_text("rejected")


@pytest.mark.long
def test_enter_in_the_message_rejects_and_never_approves(
    paying_server: LocalServer, visit: Visit
) -> None:
    page = visit(paying_server, "Approvals")
    with waiting_chats(paying_server, "the landlord") as (chat,):
        message = question(page, "the landlord").get_by_label("Message for the agent")
        message.fill("No.")
        message.press("Enter")
        assert "No." in chat.result()


@pytest.mark.long
def test_two_questions_at_once_are_decided_one_by_one(
    paying_server: LocalServer, visit: Visit
) -> None:
    page = visit(paying_server, "Approvals")
    with waiting_chats(paying_server, "the landlord", "the plumber") as (landlord, plumber):
        expect(page.get_by_role("article")).to_have_count(2)
        question(page, "the plumber").get_by_role("button", name="Reject").click()
        expect(page.get_by_role("article")).to_have_count(1)
        question(page, "the landlord").get_by_role("button", name="Approve").click()
        assert landlord.result() == "paid eve@new.example: rent"
        assert not plumber.result().startswith("paid")


@pytest.mark.long
def test_a_message_that_i_write_stays_when_another_question_comes(
    paying_server: LocalServer, visit: Visit
) -> None:
    page = visit(paying_server, "Approvals")
    with waiting_chats(paying_server, "the landlord") as (landlord,):
        message = question(page, "the landlord").get_by_label("Message for the agent")
        message.fill("Too much.")
        with waiting_chats(paying_server, "the plumber") as (plumber,):
            expect(page.get_by_role("link", name="Approvals 2 waiting")).to_be_visible()
            expect(message).to_have_value("Too much.")
            question(page, "the landlord").get_by_role("button", name="Reject").click()
            assert "Too much." in landlord.result()
            question(page, "the plumber").get_by_role("button", name="Approve").click()
            assert plumber.result().startswith("paid")


@pytest.mark.long
def test_a_question_goes_when_its_program_has_gone(
    paying_server: LocalServer, visit: Visit
) -> None:
    page = visit(paying_server, "Approvals")
    request = {"action_requests": [{"name": "pay", "args": {"to": "eve"}}]}

    async def ask_and_go() -> None:
        review = ConsoleReview(paying_server.console_url, source="the landlord")
        asking = asyncio.create_task(review.adecide(request))
        await asyncio.wrap_future(is_asked)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)

    is_asked: Future[None] = Future()
    with ThreadPoolExecutor() as threads:
        program = threads.submit(asyncio.run, ask_and_go())
        expect(question(page, "the landlord")).to_be_visible()
        is_asked.set_result(None)
        program.result()
    expect(page.get_by_role("heading", name="Nothing waits for a decision")).to_be_visible()


# Counts, logins, and the server


@pytest.mark.long
def test_activity_counts_calls_and_leads_to_the_denied_ones(
    server: LocalServer, visit: Visit
) -> None:
    converse(server, "Sum the invoices")
    page = visit(server, "Activity")
    expect(page.get_by_role("img", name="Checked calls: 2, 0 denied")).to_be_visible()
    converse(server, "Reply to the first mail")
    expect(page.get_by_role("img", name="Checked calls: 4, 1 denied")).to_be_visible()
    denial = section(page, "Denials by rule").get_by_role("row", name="should deny when")
    expect(denial.get_by_role("cell", name="1", exact=True)).to_be_visible()
    denial.get_by_role("link", name="send_mail").click()
    expect(page.get_by_role("list", name="Sessions").get_by_role("link")).to_have_count(1)
    expect(page.get_by_label("Verdict")).to_have_value("denied")


def forget_refusal(page: Page) -> None:
    """Forget that the browser reports a page that was refused."""
    assert {incident.kind for incident in incidents(page)} == {"console error"}
    assert "401" in incidents(page)[0].text
    incidents(page).clear()


@pytest.mark.long
def test_i_log_out_and_going_back_shows_nothing(server: LocalServer, visit: Visit) -> None:
    converse(server, "Sum the invoices")
    page = visit(server)
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("heading", name="sequrity console")).to_be_visible()
    page.go_back()
    expect(page.get_by_role("button", name="Log in")).to_be_visible()
    expect(page.get_by_text("Sum the invoices")).to_have_count(0)
    forget_refusal(page)


@pytest.mark.long
def test_a_wrong_token_is_refused_and_the_right_one_opens(
    server: LocalServer, visit: Visit
) -> None:
    token = server.console_url.partition("token=")[2]
    page = visit(server)
    page.get_by_role("button", name="Log out").click()
    for secret in ("wrong", token):
        page.get_by_label("Token or key").fill(secret)
        page.get_by_role("button", name="Log in").click()
        if secret == "wrong":
            expect(page.get_by_role("alert")).to_contain_text("neither the token")
    expect(page.get_by_role("heading", name="Sessions")).to_be_visible()
    forget_refusal(page)


@pytest.mark.long
def test_a_key_opens_the_page_that_i_wanted(busy_server: LocalServer, visit: Visit) -> None:
    page = visit(busy_server)
    page.get_by_role("button", name="Log out").click()
    page.goto("/console/activity")
    page.get_by_label("Token or key").fill(busy_server.secret)  # type: ignore[attr-defined]
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name="Activity of the last hour")).to_be_visible()
    forget_refusal(page)


@pytest.mark.long
def test_the_token_of_the_link_does_not_stay_in_the_address(
    server: LocalServer, visit: Visit
) -> None:
    page = visit(server)
    assert "token" in server.console_url
    assert page.url == f"{server.base_url}/console"
    assert "token" not in page.evaluate("JSON.stringify([document.cookie, document.referrer])")


@pytest.fixture
def port() -> int:
    """A port on which a server can start again."""
    with LocalServer() as server:
        return urlsplit(server.base_url).port or 0


@pytest.mark.long
def test_a_page_says_that_the_server_has_stopped_and_shows_its_news_when_it_is_back(
    port: int, visit: Visit
) -> None:
    server = LocalServer(script=traffic.SCRIPT, port=port)
    with server:
        page = visit(server)
    status = page.get_by_role("status")
    expect(status).to_contain_text("The server cannot be reached.")
    with server:
        converse(server, "Sum the invoices")
        expect(status).to_have_text("The server is back.")
        expect(row(page, "Sum the invoices")).to_be_visible()
        incidents(page).clear()
        assert_clean(page)
        page.close()


@pytest.mark.long
def test_a_page_says_that_a_new_server_does_not_know_its_login(port: int, visit: Visit) -> None:
    with LocalServer(port=port) as server:
        page = visit(server)
    with LocalServer(port=port):
        expect(page.get_by_role("status")).to_contain_text("Open the console again.")
        page.close()
    incidents(page).clear()
