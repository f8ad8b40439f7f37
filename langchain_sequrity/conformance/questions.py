"""Questions that send their own requests. Each function has the id of its probe as its name."""

import json
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from langchain_sequrity.conformance.client import (
    DUAL,
    READ,
    SEND,
    SINGLE,
    TOOLS,
    Client,
    ProbeReply,
    ProgramTurn,
    Unanswered,
    Unavailable,
    Unusable,
    json_headers_of,
    sqrt,
    unknown_session,
    user_message,
)
from langchain_sequrity.conformance.readers import Answer, acceptance, outcome, status
from langchain_sequrity.wire import denials
from langchain_sequrity.wire.dual_llm import has_two_models
from langchain_sequrity.wire.error_body import error_text
from langchain_sequrity.wire.policy_generation import variant_of
from langchain_sequrity.wire.routes import VALIDATE_HEADERS_PATH, policy_route

_ONE = "final_return_value = 1"
_ONE_CALL = "value = probe_read(n=1)\nfinal_return_value = value"
_CALL = "a = probe_send(text='x')\nfinal_return_value = a"
_WORDS = "Answer with the word: ready"
_MAX_TOKENS = 200


def program_long(client: Client) -> Answer:
    """A program of 90 kB."""
    program = f"x = '{'probe' * 18_000}'\nfinal_return_value = 1"
    return outcome(ProgramTurn(client, program).ask())


# Sessions


def session_of_another_key(client: Client) -> Answer:
    """The result of a call, with the second key."""
    if client.target.second_key is None:
        msg = "This probe needs a second key, in `SEQURITY_SECOND_API_KEY`."
        raise Unanswered(msg)
    alone = ProgramTurn(client, _ONE).ask(key=client.target.second_key)
    if alone.is_refused:
        raise Unanswered(alone.unexpected("a turn with the second key alone"))
    turn = ProgramTurn(client, _ONE_CALL).begin()
    return outcome(turn.ask_again(turn.result(), key=client.target.second_key))


def session_headers_absent(client: Client) -> Answer:
    """A call that is denied, in a request without the JSON headers."""
    program = "a = probe_read(n=1)\nb = probe_send(text='x')\nfinal_return_value = b"
    policy = sqrt('tool "probe_send" { must deny always; }')
    turn = ProgramTurn(client, program, policy=policy).begin()
    turn.headers = {}
    reply = turn.ask_again(turn.result())
    return Answer("denied", reply.error_text) if reply.outcome == "failure" else outcome(reply)


def call_id_resumes(client: Client) -> Answer:
    """A result without `X-Session-ID`."""
    turn = ProgramTurn(client, _ONE_CALL).begin()
    if turn.reply.session.replace("-", "") not in str(turn.reply.call["id"]).replace("-", ""):
        return Answer("the id is short")
    return outcome(turn.ask_again(turn.result(), session=None))


def call_id_of_another_session(client: Client) -> Answer:
    """The result of another session's call."""
    other, turn = ProgramTurn(client, _ONE_CALL).begin(), ProgramTurn(client, _ONE_CALL).begin()
    turn.messages[-1] = other.messages[-1]
    return outcome(turn.ask_again(other.result()))


def result_for_no_call(client: Client) -> Answer:
    """A result for a call that was never made."""
    turn = ProgramTurn(client, _ONE_CALL).begin()
    call_id = f"tc-{turn.reply.session}-{unknown_session()}"
    return outcome(turn.ask_again({"role": "tool", "tool_call_id": call_id, "content": "1"}))


def result_repeated(client: Client) -> Answer:
    """The same result twice."""
    program = "a = probe_read(n=1)\nb = probe_read(n=2)\nfinal_return_value = [a, b]"
    turn = ProgramTurn(client, program).begin()
    first = turn.ask_again(turn.result()).call
    reply = turn.ask_again()
    if reply.outcome != "asks for a tool":
        return outcome(reply)
    if reply.call["id"] == first["id"]:
        return Answer("the same call")
    is_copy = reply.call["function"] == first["function"]
    return Answer("a call made anew" if is_copy else "another call")


def result_repeated_with_key(client: Client) -> Answer:
    """The same request twice, with an `Idempotency-Key`."""
    turn = ProgramTurn(client, _ONE_CALL)
    key = {"Idempotency-Key": unknown_session()}
    first = turn.ask(headers=key).call["id"]
    reply = turn.ask(headers=key)
    if reply.outcome != "asks for a tool":
        return outcome(reply)
    return Answer("the same reply" if reply.call["id"] == first else "another reply")


def history_arguments_respelt(client: Client) -> Answer:
    """A history whose arguments have other white space."""
    turn = ProgramTurn(client, _ONE_CALL).begin()
    message = deepcopy(turn.messages[-1])
    function = message["tool_calls"][0]["function"]
    compact = json.dumps(json.loads(function["arguments"]), separators=(",", ":"))
    is_compact = compact == function["arguments"]
    function["arguments"] = compact.replace(":", " : ") if is_compact else compact
    turn.messages[-1] = message
    return outcome(turn.ask_again(turn.result()))


def history_system_message(client: Client) -> Answer:
    """Another system message in the second request."""
    turn = ProgramTurn(client, _ONE_CALL)
    turn.messages.insert(0, {"role": "system", "content": "It is noon."})
    turn.begin()
    turn.messages[0] = {"role": "system", "content": "It is one o'clock."}
    return outcome(turn.ask_again(turn.result()))


def filtering_runs(client: Client) -> Answer:
    """Many tools, and a low threshold for filtering."""
    reply = _with_many_tools(client, 2)
    if reply.is_refused:
        return Answer("the request is refused", reply.error_text)
    if reply.outcome == "asks for a tool":
        return Answer("all tools are there")
    return Answer("a tool is missing", reply.error_text)


def filtering_off(client: Client) -> Answer:
    """Many tools, and a threshold above their number."""
    return outcome(_with_many_tools(client, 1_000_000))


def _with_many_tools(client: Client, threshold: int) -> ProbeReply:
    """A call of the last of 14 tools, if tools are filtered above a threshold."""
    names = [f"probe_{letter}" for letter in "abcdefghijkl"]
    tools = [*TOOLS, *({**READ, "function": {**READ["function"], "name": name}} for name in names)]
    program = f"a = {names[-1]}(n=1)\nfinal_return_value = a"
    return ProgramTurn(client, program, tools, fsm={"min_num_tools_for_filtering": threshold}).ask()


def headers_optional(client: Client) -> Answer:
    """A request without `X-Policy` and `X-Config`."""
    turn = ProgramTurn(client, _ONE)
    turn.headers = {"X-Features": json.dumps(DUAL)}
    return outcome(turn.ask())


# Chats with a model


def single_llm_denial(client: Client) -> Answer:
    """A call that the policy denies, by a model."""
    prompt = "Call the tool `probe_send` with the text `probe`. Do not answer in words."
    policy = sqrt('tool "probe_send" { must deny always; }')
    return _single_llm_answer(
        client.chat(prompt, features=SINGLE, policy=policy, tools=[SEND], max_tokens=200)
    )


def single_llm_session_label(client: Client) -> Answer:
    """A call that is denied after another call."""
    policy = sqrt(
        'tool "probe_read" { session after { @tags |= {"probe-read"}; } }\n'
        'tool "probe_send" { must deny when "probe-read" in @session.tags; }'
    )
    prompt = "Call the tool `probe_read` with the number 1. Do not answer in words."
    first = client.chat(prompt, features=SINGLE, policy=policy, tools=[READ], max_tokens=200)
    if first.is_refused or not first.calls:
        raise Unanswered(first.unexpected("a call of `probe_read`"))
    next_prompt = "Now call the tool `probe_send` with the text `probe`. Do not answer in words."
    messages = [
        user_message(prompt),
        first.message,
        {"role": "tool", "tool_call_id": first.call["id"], "content": "hello"},
        user_message(next_prompt),
    ]
    body = {"model": client.target.model, "messages": messages, "tools": [SEND], "max_tokens": 200}
    headers = {**json_headers_of(SINGLE, policy), "X-Session-ID": first.session}
    return _single_llm_answer(client.ask(client.path("chat"), body, headers=headers))


def _single_llm_answer(reply: ProbeReply) -> Answer:
    """How a single-LLM session reports a denied call."""
    if reply.is_refused:
        return outcome(reply)
    if reply.calls:
        return Answer("the call is made all the same")
    refusal, text = reply.message.get("refusal"), reply.message.get("content")
    if refusal:
        return Answer("a refusal" if denials.read_text(refusal) else "unreadable", str(refusal))
    if not text:
        return Answer("an empty turn")
    if reply.outcome == "failure":
        return Answer("a failed envelope", reply.error_text)
    if denials.read_text(str(text), whole=True):
        return Answer("a text", str(text))
    msg = f"The model did not call the tool, or its denial looks like an answer. It said: {text}"
    raise Unanswered(msg)


def chat_single_llm(client: Client) -> Answer:
    """A chat with a model."""
    reply = client.chat(_WORDS, features=SINGLE, max_tokens=_MAX_TOKENS)
    if reply.is_refused:
        return outcome(reply)
    reply_id = "the session's id" if reply.body.get("id") == reply.session else "other id"
    usage = "usage" if isinstance(reply.body.get("usage"), Mapping) else "no usage"
    return Answer(f"session, {reply_id}, {usage}")


def chat_default_architecture(client: Client) -> Answer:
    """A chat without `X-Features`."""
    reply = client.chat(_WORDS, max_tokens=_MAX_TOKENS)
    if reply.is_refused:
        return outcome(reply)
    if reply.outcome not in ("success", "failure"):
        return Answer("single-LLM")
    is_marked = has_two_models(reply.body.get("model")) or reply.body.get("id") == reply.session
    return Answer("dual-LLM, marked" if is_marked else "dual-LLM, without a mark")


def chat_dual_llm(client: Client) -> Answer:
    """A chat with a planner."""
    reply = client.chat(_WORDS, features=DUAL)
    if reply.is_refused:
        return outcome(reply)
    return Answer(f"{reply.outcome}, {reply.choice.get('finish_reason')}", reply.error_text)


def chat_multi_step(client: Client) -> Answer:
    """A chat with a planner that writes steps."""
    fsm = {"enable_multistep_planning": True, "disable_rllm": True, "max_pllm_steps": 3}
    return outcome(client.chat(_WORDS, features=DUAL, config={"fsm": fsm}))


# The other formats


def chat_messages(client: Client) -> Answer:
    """A chat in the format of Messages."""
    path = client.path("chat", "messages")
    reply = _chat(client, path, messages=[user_message(_WORDS)], max_tokens=_MAX_TOKENS)
    return outcome(reply) if reply.is_refused else _answer_in(reply, reply.body.get("content"))


def chat_responses(client: Client) -> Answer:
    """A chat in the format of Responses."""
    path = client.path("chat", "responses")
    reply = _chat(client, path, input=_WORDS, max_output_tokens=_MAX_TOKENS)
    if reply.is_refused:
        return outcome(reply)
    items = reply.body.get("output") or []
    return _answer_in(reply, [block for item in items for block in item.get("content") or []])


def _chat(client: Client, path: str, **body: Any) -> ProbeReply:
    fields = {"model": client.target.model, **body}
    return client.ask(path, fields, headers=json_headers_of(SINGLE))


def _answer_in(reply: ProbeReply, blocks: Any) -> Answer:
    """Whether an answer of another format has a text."""
    types = [block.get("type") for block in blocks or ()]
    has_text = bool({"text", "output_text"}.intersection(types))
    named = "session" if reply.headers.get("x-session-id") else "no session"
    return Answer(f"a text, {named}" if has_text else ", ".join(map(str, types)) or "no text")


def messages_of_graph(client: Client) -> Answer:
    """A program in the format of Messages."""
    functions = [tool["function"] for tool in TOOLS]
    tools = [{"name": f["name"], "input_schema": f["parameters"]} for f in functions]
    path = client.path("lang-graph", "messages")
    reply = ProgramTurn(client, _CALL, tools, path=path, body={"max_tokens": _MAX_TOKENS}).ask()
    if reply.is_refused:
        return outcome(reply)
    types = [block.get("type") for block in reply.body.get("content")]
    return Answer(", ".join(map(str, types)) or "something else")


def policy_gen_reply(client: Client) -> Answer:
    """A description of a policy."""
    provider = client.target.provider
    body = {
        "type": variant_of(provider),
        "model": client.target.model,
        "tools": list(TOOLS),
        "description": "What `probe_read` returns is never sent.",
        "n_retries": 1,
    }
    reply = client.ask(policy_route(provider).path, body)
    if reply.is_refused or not isinstance(reply.body, dict):
        return outcome(reply)
    return Answer(", ".join(sorted(reply.body)))


# Keys and errors


def key_missing(client: Client) -> Answer:
    """A request without a key."""
    return status(ProgramTurn(client, _ONE).ask(key=None, any_page=True))


def key_wrong(client: Client) -> Answer:
    """A request with a key that does not exist."""
    if client.target.is_local and not client.target.secrets:
        msg = "No key was given, so the server accepts any key."
        raise Unanswered(msg)
    return status(ProgramTurn(client, _ONE).ask(key="probe-of-no-key", any_page=True))


def error_body(client: Client) -> Answer:
    """A body that is not JSON, for the form of the error."""
    reply = _malformed(client)
    if not reply.is_refused:
        return outcome(reply)
    if not isinstance(reply.body, Mapping):
        return Answer("no JSON object", reply.error_text)
    if not error_text(reply.body):
        return Answer("nothing to read", reply.error_text)
    return Answer(", ".join(sorted(map(str, reply.body))), reply.error_text)


def error_malformed_body(client: Client) -> Answer:
    """A body that is not JSON, for the status."""
    return status(_malformed(client))


def _malformed(client: Client) -> ProbeReply:
    """Send a body that is not JSON."""
    turn = ProgramTurn(client, _ONE)
    return client.ask(turn.path, b"{", headers=turn.headers, any_page=True)


def error_missing_field(client: Client) -> Answer:
    """A body without messages."""
    turn = ProgramTurn(client, _ONE)
    reply = client.ask(turn.path, turn.body, headers=turn.headers, any_page=True)
    detail = reply.body.get("detail") if isinstance(reply.body, Mapping) else None
    is_list = isinstance(detail, list) and all(
        isinstance(problem, Mapping) and {"loc", "msg"} <= problem.keys() for problem in detail
    )
    return Answer(f"status {reply.status}{', a list' if is_list else ''}", reply.error_text)


# Headers and other endpoints


def header_of_8_kib(client: Client) -> Answer:
    """A header line of 8 KiB."""
    return outcome(_with_header_line(client, 8192))


def header_of_20_kib(client: Client) -> Answer:
    """A header line of 20 KiB."""
    try:
        return acceptance(_with_header_line(client, 20_480, any_page=True))
    except Unavailable:
        raise
    except Unusable as error:  # some servers close the connection during the request
        _with_header_line(client, 1_024)  # raises if that was no answer
        return Answer("refused", str(error))


def _with_header_line(client: Client, size: int, *, any_page: bool = False) -> ProbeReply:
    """Send an `X-Policy` whose header line has that many bytes."""
    head = len(json.dumps(sqrt(""))) + len("X-Policy: \r\n")
    policy = json.dumps(sqrt("//" + "x" * (size - head - 2)))
    return ProgramTurn(client, _ONE).ask(headers={"X-Policy": policy}, any_page=any_page)


def validate_headers(client: Client) -> Answer:
    """A valid and an invalid header to check."""
    body = {"x_features": json.dumps(DUAL), "x_policy": "{"}
    reply = client.ask(VALIDATE_HEADERS_PATH, body, key=None, any_page=True)
    if reply.is_refused or not isinstance(reply.body, Mapping):
        return status(reply)
    rows = [reply.body.get(name) for name in body]
    verdicts = [row.get("valid") if isinstance(row, Mapping) else None for row in rows]
    return Answer("true and false" if verdicts == [True, False] else json.dumps(verdicts))


def health(client: Client) -> Answer:
    """Both addresses of the health check."""
    paths = ("/health", "/control/health")
    served = [
        path for path in paths if not client.ask(path, method="GET", any_page=True).is_refused
    ]
    return Answer("both" if len(served) == len(paths) else "".join(served) or "neither")


def unknown_path(client: Client) -> Answer:
    """A path that does not exist."""
    return status(client.ask("/control/probe/v1/chat/completions", {}, any_page=True))
