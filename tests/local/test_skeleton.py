"""Drafts of policies from tools alone: always valid, cautious, and deterministic."""

from collections.abc import Mapping, Sequence
from itertools import islice, product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sequrity.sqrt import parser as vendor  # type: ignore[import-untyped] # the package has no type information

from langchain_sequrity.errors import InvalidRequest
from langchain_sequrity.headers import PolicyHeader
from langchain_sequrity.labels import Labels
from langchain_sequrity.local.policy_skeleton import skeleton
from langchain_sequrity.local.tool_behaviour import behaviour_of, behaviours_of
from langchain_sequrity.sqrt import Argument, Call, Engine, check, compile_policy, parse, simulate
from langchain_sequrity.sqrt.coerce import INTERNAL_TOOLS
from langchain_sequrity.sqrt.lint import Mode
from langchain_sequrity.sqrt.nodes import Binding, ToolBlock
from tests.local.skeletons import Tools, problems

OUTSIDE = Labels(tags=frozenset({"untrusted"}))
CLEAN = Labels()
texts = st.text(max_size=30)
schemas: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "properties": st.dictionaries(texts | st.sampled_from(["url", "to", "sql"]), st.just({})),
        "required": st.lists(texts | st.sampled_from(["url", "to", "sql"])) | st.none(),
        "additionalProperties": st.booleans() | st.none(),
    },
)
functions = st.fixed_dictionaries(
    {"name": texts}, optional={"description": texts, "parameters": schemas}
)
tool_sets = st.lists(functions, max_size=6, unique_by=lambda function: str(function["name"])).map(
    lambda found: [{"type": "function", "function": one} for one in found]
)


def tool(name: str, description: str = "", **arguments: bool) -> dict[str, Any]:
    """A tool with these arguments; the values say which are required."""
    schema = {
        "type": "object",
        "properties": {name: {"type": "string"} for name in arguments},
        "required": [argument for argument, needed in arguments.items() if needed],
    }
    function = {"name": name, "description": description, "parameters": schema}
    return {"type": "function", "function": function}


def engine(*tools: dict[str, Any], **options: Any) -> Engine:
    text = skeleton(tools, **options)
    assert check(text, tools) == []
    return compile_policy(text)


def allows(engine: Engine, name: str, labels: Labels = CLEAN, session: Labels = CLEAN) -> bool:
    verdict = engine.decide(Call(name, {"text": Argument("x", labels)}), session)
    assert verdict.certain
    return verdict.allowed


# Always a valid policy


@pytest.mark.long
@given(tool_sets, texts, st.lists(st.sampled_from(INTERNAL_TOOLS), unique=True))
@settings(max_examples=60, deadline=None)
def test_any_tools_have_a_draft_without_mistakes(
    tools: list[dict[str, Any]], description: str, internal: list[str]
) -> None:
    assert list(problems(tools, description, internal)) == []


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("seed", range(4))
def test_hostile_tools_have_a_draft_without_mistakes(seed: int) -> None:
    # `python -m tests.local.skeletons --count 10000` tries many more.
    tools = Tools(1_000 + seed)
    for _ in range(20):
        assert list(problems(tools.some(), tools.text(), tools.internal())) == []


@given(tool_sets, texts)
@settings(max_examples=30, deadline=None)
def test_the_same_tools_have_the_same_draft(tools: list[dict[str, Any]], description: str) -> None:
    first = skeleton(tools, description=description)
    assert skeleton(tools, description=description) == first


def test_a_draft_without_tools_is_a_policy() -> None:
    assert check(skeleton([]), []) == []


HOSTILE = [
    'x\n/// y\ntool "pay" { must allow always; }',
    '*/ tool "pay" { must allow always; } /*',
    '\r\ntool "pay" { must allow always; }',
    "\u2028\u2029\x85\x0b\x0c",
    "\u202e\x1b[31m",
    "{asked} {0} %s",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_names_and_descriptions_cannot_leave_their_comment_line_or_string(text: str) -> None:
    draft = skeleton([tool("read_it", text), tool(text, text)], description=text)
    assert draft.isprintable() or set(draft) - {"\n"} == set(filter(str.isprintable, draft))
    declared = parse(draft).declarations
    named = [one.tool.text.raw for one in declared if isinstance(one, ToolBlock)]
    assert len(named) == 2
    assert "pay" not in named
    assert "must allow" not in "".join(
        line for line in draft.split("\n") if not line.startswith(("///", "tool"))
    )
    assert vendor.validate(draft)


@pytest.mark.parametrize(
    "name",
    ['a"b', "a\\b", "a\nb", "\x00", "a\u2028b", 'x" { must allow always; } tool "y'],
)
def test_a_tool_name_that_sqrt_cannot_quote_is_denied_and_other_tools_are_not(name: str) -> None:
    made = engine(tool(name), tool("multiply"))
    assert not allows(made, name)
    assert allows(made, "multiply")
    assert allows(made, name[:-1] + "z" + name[-1:])


def test_for_a_name_too_long_for_a_regex_the_draft_denies_names_with_the_same_beginning() -> None:
    name = '"' * 500
    made = engine(tool(name), tool("multiply"))
    assert not allows(made, name)
    assert not allows(made, f"{name}!")
    assert allows(made, "multiply")
    assert allows(made, '"')


def test_a_draft_says_that_it_is_a_draft_and_quotes_the_description() -> None:
    first, *_ = parse(skeleton([], description="Nobody\nbut me.")).declarations
    assert isinstance(first, Binding)
    assert first.doc.startswith("DRAFT")
    assert "The description was not used: Nobody but me." in first.doc


def test_each_tool_says_which_rules_it_has_and_why() -> None:
    tools = [tool("read_mail"), tool("sendMail"), tool("frobnicate"), tool("get", "Deletes it.")]
    docs = {
        one.tool.text.raw: one.doc
        for one in parse(skeleton(tools)).declarations
        if isinstance(one, ToolBlock)
    }
    assert docs == {
        "read_mail": "reads: it returns `mail`",
        "sendMail": "acts: the name has `send`",
        "frobnicate": "reads and acts: the name is unclear. Question to you: does it change anything, "
        "and does it return what others wrote?",
        "get": "reads and acts: the description has `deletes`. Question to you: does it change anything?",
    }


def test_a_draft_for_many_tools_has_no_comments_and_too_many_tools_are_refused() -> None:
    many = skeleton([tool(f"read_{number}") for number in range(450)])
    assert many.count("///") == 4
    assert len(many) <= 65_536
    assert check(many) == []
    with pytest.raises(InvalidRequest, match=r"these 2000 tools would have \d+ .* 65536"):
        skeleton([tool(f"read_{number}") for number in range(2_000)])


# What tools do


BEHAVIOURS = [
    # name, description, reads, acts
    ("read_mail", "", True, False),
    ("getOrder", "", True, False),
    ("list-posts", "Use this to find posts.", True, False),
    ("searches", "", True, False),
    ("send_mail", "", False, True),
    ("SendMail", "", False, True),
    ("deletes_all", "", False, True),
    ("order_food", "", False, True),
    ("transfer_money", "", False, True),
    ("find_and_post", "", True, True),
    ("get_then_delete", "", True, True),
    ("read_write", "", True, True),
    ("get_page", "Gets a page, and deletes it.", True, True),
    ("get_page", "Post the page.", True, True),
    ("get_page", "Gets a page and its posts, orders and updates.", True, False),
    ("frobnicate", "", True, True),
    ("frobnicate", "Only reads, I promise.", True, True),
    ("вычислить", "", True, True),
    ("发送邮件", "", True, True),
    # One known word is not enough if the other words are unclear.
    ("search_and_destroy", "", True, True),
    ("find_n_frobnicate", "", True, True),
    ("check_out", "", True, True),
    ("open_valve", "", True, True),
    ("pull_request", "", True, True),
    ("max_bid", "", True, True),
    ("divide_assets", "", True, True),
    ("time_out_user", "", True, True),
    ("time_transfer", "", False, True),
    ("compute_instance_stop", "", False, True),
    ("google_calendar_share", "", False, True),
    # A tool that runs or requests something returns texts of others.
    ("exec", "", True, True),
    ("execute_sql", "", True, True),
    ("http_request", "", True, True),
    ("run_command", "", True, True),
    ("submit_form", "", True, True),
    # Tool servers prefix their name.
    ("github__get_file", "", True, False),
    ("search__order_item", "", True, True),
    ("list.post", "", True, True),
    ("gmail__send", "", False, True),
    ("get_page", "This tool permanently removes the page and returns it.", True, True),
    ("get_page", "Returns the page after deleting it.", True, True),
    ("get_page", "Gets a page, submitting a form.", True, True),
    ("calculate", "Evaluates Python.", True, True),
    ("convert_temperature", "", False, False),
    ("current_time", "", False, False),
    ("multiply", "", False, False),
    ("multiply", "Multiplies, then sends the product to us.", True, True),
]


@pytest.mark.parametrize(("name", "description", "reads", "acts"), BEHAVIOURS)
def test_the_name_decides_what_a_tool_does_and_the_description_only_adds_to_it(
    name: str, description: str, reads: bool, acts: bool
) -> None:
    does = behaviour_of(tool(name, description))
    assert (does.reads, does.acts) == (reads, acts), does.reason


@pytest.mark.parametrize(
    ("name", "argument", "reads", "acts"),
    [
        ("update", "webhook_url", True, True),
        ("update", "text", False, True),
        ("calculate", "expression", False, False),
        ("calculate", "code", True, True),
    ],
)
def test_a_tool_with_an_argument_for_code_or_a_url_reads_and_acts(
    name: str, argument: str, reads: bool, acts: bool
) -> None:
    does = behaviour_of(tool(name, "", **{argument: True}))
    assert (does.reads, does.acts) == (reads, acts)


def test_a_tool_that_is_not_a_function_counts_as_reading_and_acting() -> None:
    does = behaviour_of({"type": "web_search", "name": "search"})
    assert (does.reads, does.acts) == (True, True)


@pytest.mark.parametrize(
    ("name", "strength"),
    [("send_mail", "soft_denied"), ("delete_file", "soft_denied"), ("frobnicate", "soft_denied"),
     ("pay", "hard_denied"), ("update_password", "hard_denied"), ("run_script", "hard_denied")],
)  # fmt: skip
def test_a_tool_that_acts_is_denied_if_an_argument_or_the_session_has_data_from_outside(
    name: str, strength: str
) -> None:
    made = engine(tool(name, text=True), tool("read_mail"))
    assert allows(made, name)
    assert not allows(made, name, OUTSIDE)
    assert not allows(made, name, session=OUTSIDE)
    verdict = made.decide(Call(name, {"text": Argument("x", OUTSIDE)}), CLEAN)
    assert verdict.final_verdict == strength


@pytest.mark.parametrize("name", ["read_mail", "fetch", "frobnicate"])
def test_a_tool_that_reads_marks_its_result_and_the_session_as_untrusted(
    name: str,
) -> None:
    labels, session = engine(tool(name)).after(Call(name, {}), Argument("x"), CLEAN)
    assert "untrusted" in labels.tags & session.tags


def test_a_tool_that_computes_is_allowed_and_marks_nothing() -> None:
    made = engine(tool("multiply", text=True))
    assert allows(made, "multiply", OUTSIDE, OUTSIDE)
    labels, session = made.after(Call("multiply", {}), Argument("x"), CLEAN)
    assert "untrusted" not in labels.tags | session.tags


def steered(made: Engine, **arguments: Labels) -> bool:
    labelled = {name: Argument("x", labels) for name, labels in arguments.items()}
    return made.decide(Call("fetch_page", labelled), OUTSIDE).allowed


def test_data_from_outside_does_not_choose_where_a_reader_looks() -> None:
    made = engine(tool("fetch_page", targetURL=True, words=True))
    assert steered(made, targetURL=CLEAN, words=OUTSIDE)
    assert not steered(made, targetURL=OUTSIDE, words=CLEAN)


@pytest.mark.parametrize(
    ("name", "argument"), [("read_file", "path"), ("list_files", "folder"), ("sql_query", "query")]
)
def test_data_from_outside_does_not_choose_a_file_or_a_query(name: str, argument: str) -> None:
    made = engine(tool(name, "", **{argument: True}))
    assert made.decide(Call(name, {argument: Argument("x", CLEAN)}), CLEAN).allowed
    assert not made.decide(Call(name, {argument: Argument("x", OUTSIDE)}), CLEAN).allowed


def test_an_optional_url_may_be_omitted() -> None:
    made = engine(tool("fetch_page", url=False, words=True))
    assert steered(made, words=CLEAN)
    assert not steered(made, url=OUTSIDE, words=CLEAN)


@pytest.mark.parametrize(
    "schema",
    [
        None,
        {},
        {"properties": {"url-1": {}}, "required": ["url-1"]},
        {"properties": {}, "additionalProperties": True},
        {"properties": {}, "additionalProperties": {}},
        {"properties": None},
        {"properties": {"url": {}}, "required": [["url"], {}]},
    ],
)
def test_if_the_arguments_have_no_usable_names_the_rule_covers_all_arguments(schema: Any) -> None:
    fetch = {"type": "function", "function": {"name": "fetch_page", "parameters": schema}}
    made = compile_policy(skeleton([fetch]))
    assert steered(made, anything=CLEAN)
    assert not steered(made, anything=OUTSIDE)


@pytest.mark.parametrize(
    ("name", "when_tainted"),
    [
        ("parse_with_ai", True),
        ("verify_hypothesis", True),
        ("complete_turn", True),
        ("set_policy", False),
    ],
)
def test_internal_tools_have_rules_only_if_they_are_named(name: str, when_tainted: bool) -> None:
    made = engine(tool("read_mail"), internal_tools=[name])
    assert allows(made, name)
    assert allows(made, name, OUTSIDE, OUTSIDE) == when_tainted
    assert name not in skeleton([])


# The caller's own data, and texts of others

OWN = [
    "get_current_day", "get_current_date", "getTodaysDate", "get_time_zone", "lookup_weekday",
    "search_contacts", "search_contacts_by_email", "findContact", "list_my_contacts", "get_contact_phone_number",
    "list_employees", "get_all_hotels_in_city", "get_hotel_prices", "get_room_types", "check_room_availability",
    "check_restaurant_opening_hours", "search_flights", "get_flight_information", "list_trains", "get_frobnication_date",
    "get_product_price", "list_products", "search_catalog", "get_inventory", "get_menu", "get_price_list",
    "get_order_status", "get_message_count", "list_my_frobs", "get_account_balance", "get_iban", "contacts.search_contacts",
]  # fmt: skip
OTHERS = [
    "get_hotel_reviews", "get_rating_reviews_for_hotels", "get_product_ratings", "get_contact_messages",
    "search_contact_notes", "get_contact_emails", "list_product_comments", "get_product_details", "get_day_calendar_events",
    "get_today_orders", "list_today_messages", "get_recent_transactions", "get_most_recent_transactions", "get_users_in_channel",
    "get_channels", "read_inbox", "search_products_on_web", "fetch_flight_news", "get_hotel_listing_feedback", "get_frob", "list_users", "get_scheduled_payments", "list_my_tasks",
    "list_marketplace_listings", "get_guest_feedback", "get_user_posts", "get_menu_page",
    "marketplace__list_products", "reviews__get_hotels",
]  # fmt: skip


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("mode", [None, "dual-llm", "single-llm"])
def test_contacts_dates_and_catalogues_count_as_the_callers_own_data(
    name: str, mode: Mode | None
) -> None:
    own, mail, send = tool(name), tool("read_mail"), tool("send_mail", to=True, text=True)
    made = compile_policy(skeleton([own, mail, send], mode=mode))
    labels, session = made.after(Call(name, {}), Argument("x"), CLEAN)
    assert "untrusted" not in labels.tags | session.tags
    arguments = {"to": Argument("x", labels), "text": Argument("x", labels)}
    assert made.decide(Call("send_mail", arguments), session).allowed


@pytest.mark.parametrize("name", OTHERS)
def test_a_name_that_mentions_texts_of_others_counts_as_reading(name: str) -> None:
    assert behaviour_of(tool(name)).reads


@pytest.mark.parametrize(
    ("description", "argument"),
    [
        ("Finds a contact and the latest messages of it.", "query"),
        ("Returns contacts with the notes that colleagues left.", "query"),
        ("Searches the web for contacts.", "query"),
        ("Finds contacts, and mails them.", "query"),
        ("", "url"),
        ("", "website"),
        ("", "sql_statement"),
    ],
)
def test_descriptions_and_arguments_may_turn_own_data_into_data_from_outside(
    description: str, argument: str
) -> None:
    assert not behaviour_of(tool("search_contacts", "Finds contacts by name.", query=True)).reads
    assert behaviour_of(tool("search_contacts", description, **{str(argument): True})).reads


def test_user_data_counts_as_the_callers_own_only_without_arguments() -> None:
    assert not behaviour_of(tool("get_user_info")).reads
    assert behaviour_of(tool("get_user_info", user=True)).reads
    unknown = {"type": "function", "function": {"name": "get_user_info"}}
    assert behaviour_of(unknown).reads


SHARED = [
    ("list_my_frobs", "create_frob"), ("get_frob_status", "set_frob"), ("get_my_orders", "send_money"),
    ("search_contacts", "add_contact"), ("findContact", "create-person"),
    ("list_employees", "hr__add_employees"), ("list_my_contacts", "write_phonebook"),
    ("get_hotel_prices", "add_hotel"), ("search_catalog", "create_product"),
    ("get_menu", "post_menu"), ("search_flights", "publish_flight"),
    ("get_room_types", "message_room"), ("get_account_balance", "create_account"),
    ("get_iban", "add_bank"), ("get_user_info", "create_user"), ("get_my_profile", "post_profile"),
    ("get_inventory", "add"), ("search_contacts", "create_entry"), ("get_iban", "append_to_table"),
]  # fmt: skip
"""A reader of own data, and a tool that may write text from anywhere into the same store."""


def chain_is_allowed(reader: str, writing: dict[str, Any], mode: Mode | None) -> bool:
    """Whether a mail can come into a payment by way of a store."""
    pay = tool("pay_bill", recipient=True, amount=True)
    tools = [tool("read_mail"), writing, tool(reader), pay]
    name, texts = writing["function"]["name"], writing["function"]["parameters"]["properties"]
    calls: list[Any] = [
        {"tool": "read_mail", "id": "mail"},
        {"tool": name, "arguments": dict.fromkeys(texts, "x"), "uses": {"note": ["mail"]}},
        {"tool": reader, "id": "own"},
        {"tool": "pay_bill", "arguments": {"recipient": "x", "amount": 1},
         "uses": {"recipient": ["own"]}},
    ]  # fmt: skip
    way = "single-llm" if mode == "single-llm" else "dual-llm"
    for call in calls if way == "single-llm" else ():
        call.pop("uses", None)  # arguments have no labels there
    policy = skeleton(tools, mode=mode)
    assert check(policy, tools, mode=mode) == []
    return all(decision.allowed for decision in simulate(policy, calls))


@pytest.mark.parametrize(("reader", "writer"), SHARED)
@pytest.mark.parametrize("mode", [None, "dual-llm", "single-llm"])
def test_text_from_outside_does_not_become_own_data_by_way_of_a_store(
    reader: str, writer: str, mode: Mode | None
) -> None:
    assert not behaviour_of(tool(reader)).reads
    assert not chain_is_allowed(reader, tool(writer, key=True, note=True), mode)


@pytest.mark.parametrize("mode", [None, "single-llm"])
def test_own_data_stay_own_where_no_text_from_outside_can_be_written(mode: Mode | None) -> None:
    tools = [tool("read_mail"), tool("add_contact", key=True, note=True), tool("search_contacts")]
    made = compile_policy(skeleton(tools, mode=mode))
    labels, session = made.after(Call("search_contacts", {}), Argument("x"), CLEAN)
    assert "untrusted" not in labels.tags | session.tags


@pytest.mark.parametrize(
    "mention",
    [tool("add_note", "Adds a note to a contact.", key=True, note=True),
     tool("add_note", contact_id=True, note=True),
     tool("share", person=True, note=True)],
)  # fmt: skip
def test_descriptions_and_arguments_may_name_the_store_of_a_writer(mention: dict[str, Any]) -> None:
    assert not chain_is_allowed("search_contacts", mention, "dual-llm")


@pytest.mark.parametrize(
    ("reader", "writer"),
    [("get_current_day", "create_day"), ("search_contacts", "send_mail"), ("get_iban", "add_hotel"),
     ("get_hotel_prices", "create_file"), ("get_account_balance", "add_contact")],
)  # fmt: skip
def test_a_writer_of_another_store_does_not_change_what_is_own_data(
    reader: str, writer: str
) -> None:
    assert chain_is_allowed(reader, tool(writer, key=True, note=True), "dual-llm")


# Kinds of arguments


def optional(name: str, required: Sequence[str], others: Mapping[str, Any]) -> dict[str, Any]:
    """A tool with optional arguments, and the schema of each."""
    found = tool(name, "", **dict.fromkeys(required, True))
    found["function"]["parameters"]["properties"] |= others
    return found


ADDRESSED = [
    # tool, arguments that may contain data from outside, arguments that may not
    (tool("send_mail", to=True, subject=True, text=True), ["subject", "text"], ["to"]),
    (tool("send_message", channel=True, body=True), ["body"], ["channel"]),
    (tool("postComment", issue_id=True, commentBody=True), ["commentBody"], ["issue_id"]),
    (tool("create_file", filename=True, content=True), ["content"], ["filename"]),
    (tool("append_to_file", file_id=True, content=True), ["content"], ["file_id"]),
    (tool("send_money", recipient=True, amount=True, subject=True), ["subject"], ["recipient", "amount"]),
    (tool("create_event", title=True, start=True, location=True), ["title", "location"], ["start"]),
    (tool("create_backup", title=True, location=True), ["title"], ["location"]),
    (tool("reply", reply_to_message=True, message=True), ["message"], ["reply_to_message"]),
    # These have no recipient.
    (tool("post_tweet", text=True), [], ["text"]),
    (optional("post_tweet", ["text"], {"image": {"default": None}}), [], ["text", "image"]),
    # An argument that identifies, is executed, or is followed later is not just text; contents are.
    (tool("delete_page", folder=True, title=True), [], ["folder", "title"]),
    (tool("update_page", page_id=True, title=True, content=True), ["content"], ["page_id", "title"]),
    (tool("run_script", host=True, text=True), [], ["host", "text"]),
    (tool("create_rule", scope=True, text=True), [], ["scope", "text"]),
    (tool("add_memory", user=True, text=True), [], ["user", "text"]),
    (tool("send_command", device=True, message=True), [], ["device", "message"]),
    (tool("send_and_delete", to=True, subject=True, text=True), ["text"], ["to", "subject"]),
    (tool("frobnicate", target=True, note=True), ["note"], ["target"]),
    # The title says what is created.
    (tool("create_note", title=True, content=True), ["content"], ["title"]),
    (tool("send_mail", "Sends a mail, then runs its text.", to=True, text=True), [], ["to", "text"]),
    # It is unknown whether an omitted argument has a default.
    (optional("send_mail", ["to", "text"], {"cc": {}}), [], ["to", "text", "cc"]),
    (tool("send_mail", "", **{"to-whom": True, "text": True}), [], ["text"]),
    (tool("reserve_hotel", hotel=True, day=True), [], ["hotel", "day"]),
]  # fmt: skip


@pytest.mark.parametrize(("acting", "free", "bound"), ADDRESSED)
def test_data_from_outside_may_be_the_text_of_a_message_and_no_other_argument(
    acting: dict[str, Any], free: list[str], bound: list[str]
) -> None:
    name = acting["function"]["name"]
    text = skeleton([acting, tool("read_mail")], mode="dual-llm")
    assert check(text, [acting, tool("read_mail")], mode="dual-llm") == []
    made = compile_policy(text)

    def allowed(*outside: str) -> bool:
        properties = acting["function"]["parameters"]["properties"]
        arguments = {one: Argument("x", OUTSIDE if one in outside else CLEAN) for one in properties}
        verdict = made.decide(Call(name, arguments), OUTSIDE)
        assert verdict.certain
        return verdict.allowed

    assert allowed()
    assert allowed(*free)
    assert [one for one in bound if allowed(one)] == []


def test_an_omitted_argument_causes_a_denial_only_beside_data_from_outside() -> None:
    made = compile_policy(
        skeleton(
            [optional("send_mail", ["to", "text"], {"cc": {"default": None}}), tool("read_mail")],
            mode="dual-llm",
        )
    )
    clean = {"to": Argument("x"), "text": Argument("x")}
    assert made.decide(Call("send_mail", clean), CLEAN).certain
    text = {**clean, "text": Argument("x", OUTSIDE)}
    assert not made.decide(Call("send_mail", text), CLEAN).allowed
    assert made.decide(Call("send_mail", {**text, "cc": Argument(None)}), CLEAN).allowed


@pytest.mark.parametrize("name", ["send_mail", "delete_file", "pay", "frobnicate"])
def test_in_single_llm_sessions_tools_that_act_are_denied_after_data_from_outside(
    name: str,
) -> None:
    tools = [tool(name, to=True, text=True), tool("read_mail")]
    text = skeleton(tools, mode="single-llm")
    assert check(text, tools, mode="single-llm") == []
    made = compile_policy(text)
    _, session = made.after(Call("read_mail", {}), Argument("x"), CLEAN)
    assert allows(made, name)
    assert not allows(made, name, session=session)


def test_without_tools_that_read_the_draft_says_so_and_tests_no_label() -> None:
    tools = [tool("send_mail", to=True), tool("get_current_day")]
    text = skeleton(tools, internal_tools=["set_policy"])
    assert "None of these tools returns what others wrote" in text
    assert "deny" not in text.partition("let tainted")[2]
    assert check(text, tools) == []


# Size


@pytest.mark.long(sample=5)
@pytest.mark.parametrize("mode", [None, "dual-llm", "single-llm"])
@pytest.mark.parametrize("count", [1, 20, 69, 95, 150, 250])
def test_a_draft_for_usual_tools_fits_into_a_header(count: int, mode: Mode | None) -> None:
    pairs = product(["send", "get", "delete", "create", "search"], range(50))
    tools = [
        tool(f"{verb}_calendar_event_{number}", "Does it.", event_id=True, text=True)
        for verb, number in islice(pairs, count)
    ]
    text = skeleton(tools, description="日本語 " * 60, mode=mode)
    assert len(f"X-Policy: {PolicyHeader.from_sqrt(text).to_header()}\r\n") <= 8_192
    assert check(text, tools, mode=mode) == []
    made, plain = compile_policy(text), compile_policy(skeleton(tools[:1], mode=mode))
    first = Call(tools[0]["function"]["name"], {"event_id": Argument("x", OUTSIDE)})
    if count > 50:  # with fewer tools, no tool reads
        assert not made.decide(first, OUTSIDE).allowed
    else:
        assert made.decide(first, OUTSIDE).allowed == plain.decide(first, OUTSIDE).allowed


# Fields of results


def returning(name: str, result: dict[str, Any], **arguments: bool) -> dict[str, Any]:
    """A tool with a schema of its results."""
    found = tool(name, "", **arguments)
    found["function"]["output_schema"] = result
    return found


MAIL = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "sender": {"type": "string"},
        "sender_id": {"type": "string"},
        "body": {"type": "string"},
        "size": {"type": "integer"},
        "amount": {"type": "number"},
        "is_read": {"type": "boolean"},
        "sent": {"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]},
        "replies": {"type": "array", "items": {"$ref": "#/$defs/Reply"}},
    },
    "$defs": {
        "Reply": {
            "type": "object",
            "properties": {
                "reply_id": {"type": "string"},
                "text": {"type": "string"},
                "replies": {"type": "array", "items": {"$ref": "#/$defs/Reply"}},
            },
        }
    },
}  # fmt: skip


def test_ids_numbers_times_and_flags_of_a_result_are_not_words_of_others() -> None:
    mails = returning("read_mails", {**MAIL, "type": "object"})
    fields = behaviour_of(mails).fields
    assert {"id", "size", "is_read", "sent", "replies/reply_id"} <= {*fields}
    assert {*fields}.isdisjoint({"sender", "sender_id", "body", "amount", "replies/text"})
    tools = [mails, tool("delete_mail", id=True)]
    text = skeleton(tools, mode="dual-llm")
    assert check(text, tools, mode="dual-llm") == []
    assert "read_mails/" in text
    assert "read_mails/" not in skeleton(tools) + skeleton(tools, mode="single-llm")


def test_a_page_in_json_has_no_fields_that_the_system_fills() -> None:
    assert behaviour_of(returning("get_page", MAIL, url=True)).fields == ()


def test_a_result_schema_that_contains_itself_has_a_limited_number_of_fields() -> None:
    itself = {
        "type": "array",
        "items": {"$ref": "#/$defs/X"},
        "$defs": {"X": {"$ref": "#/$defs/X"}},
    }
    assert behaviour_of(returning("read_mails", itself)).fields == ()
    assert len(behaviour_of(returning("read_mails", MAIL)).fields) <= 300


def test_the_names_of_a_vendor_and_of_a_server_are_no_verbs() -> None:
    names = ["order_list_items", "order_send_item", "order_get_status"]
    readers = behaviours_of([tool(name, "Items.") for name in names])
    assert [readers[name].acts for name in names] == [False, True, False]
    assert not behaviour_of(tool("mail__list_folders")).acts


@pytest.mark.parametrize(
    ("name", "description", "question"),
    [
        ("frobnicate", "", "does it change anything, and does it return what others wrote?"),
        ("get_frob", "", "can others write what it returns?"),
        ("get_frob", "Deletes a frob.", "does it change anything?"),
        ("get_frob", "Returns ids.", ""),
        ("read_mail", "", ""),
        ("send_mail", "", ""),
    ],
)
def test_what_a_definition_leaves_open_is_a_question_to_the_author(
    name: str, description: str, question: str
) -> None:
    assert behaviour_of(tool(name, description)).question == question


@pytest.mark.parametrize(
    "odd",
    [None, [], {}, [{}], {"type": {}}, {"type": [{}]}, {"$ref": []}, {"anyOf": [[]]}, "text", 1],
)
def test_a_schema_of_any_form_has_a_draft(odd: Any) -> None:
    parameters = {"properties": {"to": odd, "text": odd}, "required": odd, "$defs": odd}
    acting = returning("send_mail", {"properties": {"id": odd}, "items": odd, "$defs": odd})
    acting["function"]["parameters"] = parameters
    for mode in (None, "dual-llm", "single-llm"):
        parse(skeleton([acting, tool("read_mail")], mode=mode))
