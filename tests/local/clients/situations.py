"""What each client has to show, in sessions of both architectures.

Each function here fills a column of the table: it checks what has to hold with every client, and
returns what the table says of this one.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from tests.local.clients.answers import Answer, Row, Target, Tool, name_of
from tests.local.clients.gateway import ARCHITECTURES, DENIED, Running, cut_after

YES = "yes"
HELLO = "Hello there"
WEATHER, BOTH = "call get_weather in `Rome`", "call get_weather and get_time with city='Rome'"
PAY = "pay amount=500 please"
TEXTS = {"get_weather": "Sunny in {}", "get_time": "Noon in {}", "pay": "Paid {}"}


def recorded(calls: list[tuple[str, object]], *names: str) -> dict[str, Tool]:
    """Tools that write down their calls."""

    def tool(name: str) -> Tool:
        def run(value: object) -> str:
            calls.append((name, value))
            return TEXTS[name].format(value)

        return run

    return {name: tool(name) for name in names}


def error_of(row: Row, target: Target, prompt: str = HELLO, *, stream: bool = False) -> Exception:
    """The exception that a turn raises."""
    tools = recorded([], "pay")
    try:
        answer = row.begin(target, tools).say(prompt, stream=stream)
    except Exception as error:  # noqa: BLE001 - each client has its own
        return error
    msg = f"{row.name} answered: {answer}"
    raise AssertionError(msg)


def answer(row: Row, gateway: Running) -> str:
    """A plain answer, with its tokens."""
    for architecture in ARCHITECTURES:
        reply = row.begin(gateway.target(architecture), {}).say(HELLO)
        assert reply.text == f"You said: {HELLO}"
        assert all(count > 0 for count in reply.tokens), reply.tokens
    return YES


def stream(row: Row, gateway: Running) -> str:
    """The same answer in pieces, with the same tokens."""
    text = YES
    for architecture in ARCHITECTURES:
        target = gateway.target(architecture)
        whole = row.begin(target, {}).say(HELLO)
        streamed = row.begin(target, {}).say(HELLO, stream=True)
        assert streamed.text == "".join(streamed.pieces) == whole.text
        assert streamed.end == whole.end
        if streamed.tokens == (0, 0):
            text = "yes, without numbers of tokens"
        else:
            assert streamed.tokens == whole.tokens
    return text


def tools(row: Row, gateway: Running) -> str:
    """One call, two calls in one turn, and a call in a stream: each runs once."""
    for architecture in ARCHITECTURES:
        target = gateway.target(architecture)
        for prompt, is_streamed in ((WEATHER, False), (BOTH, False), (BOTH, True)):
            calls: list[tuple[str, object]] = []
            available = recorded(calls, "get_weather", "get_time")
            reply = row.begin(target, available).say(prompt, stream=is_streamed)
            expected = ["get_weather", "get_time"] if prompt is BOTH else ["get_weather"]
            assert sorted(calls) == sorted((name, "Rome") for name in expected)
            assert all(TEXTS[name].format("Rome") in reply.text for name in expected)
    return YES


def conversation(row: Row, gateway: Running) -> str:
    """A second message after tools finds the session without a header, and so does a third."""
    for architecture in ARCHITECTURES:
        calls: list[tuple[str, object]] = []
        earlier = gateway.sessions
        talk = row.begin(gateway.target(architecture), recorded(calls, "get_weather"))
        assert "Sunny in Rome" in talk.say(WEATHER).text
        assert talk.say("Hello again").text == "You said: Hello again"
        assert talk.say("And again", stream=True).text == "You said: And again"
        assert calls == [("get_weather", "Rome")]
        assert len(gateway.sessions - earlier) == 1
    return YES


def structure(row: Row, gateway: Running) -> str:
    """An answer in the form of a schema."""
    for architecture in ARCHITECTURES:
        values = row.begin(gateway.target(architecture), {}).fill('The weather in "Rome"')
        assert values["city"] == "Rome"
        assert isinstance(values["degrees"], int)
    return YES


def denied(row: Row, gateway: Running) -> str:
    """A denied call: the tool does not run, and nothing looks like an answer."""
    shown: dict[bool, set[str]] = {False: set(), True: set()}
    earlier = gateway.sessions
    for architecture in ARCHITECTURES:
        for is_streamed in (False, True):
            calls: list[tuple[str, object]] = []
            target = gateway.target(architecture)
            ordinary = row.begin(target, {}).say(HELLO)
            talk = row.begin(target, recorded(calls, "get_weather", "pay"))
            talk.say(WEATHER)
            try:
                reply = talk.say(PAY, stream=is_streamed)
            except Exception as error:  # noqa: BLE001 - each client has its own
                text = str(error)
                assert DENIED in text or "content filter" in text, text
                reason = "with" if DENIED in text else "without"
                shown[is_streamed].add(f"`{name_of(error)}` {reason} the reason")
            else:
                shown[is_streamed].add(_shown_refusal(row, reply, ordinary))
            # The conversation goes on.
            if talk.say("Hello again").text != "You said: Hello again":
                shown[is_streamed].add("the next request has the denied message again")
            assert calls == [("get_weather", "Rome")]
    # Each conversation went on in its session.
    assert len(gateway.sessions - earlier) == 2 * 2 * len(ARCHITECTURES)
    whole, streamed = ("; ".join(sorted(texts)) for texts in shown.values())
    return whole if whole == streamed else f"{whole}. Streamed: {streamed}"


def _shown_refusal(row: Row, reply: Answer, ordinary: Answer) -> str:
    assert reply.end != ordinary.end
    end = f"`{row.end_at}` is `{reply.end}`"
    if reply.text:
        assert DENIED in reply.text
        return f"{end}, the text is the reason"
    if reply.refusal is None:
        return f"no text, no reason; {end}"
    assert DENIED in reply.refusal
    return f"no text; {end}, the reason is `{row.refusal_at}`"


def errors(row: Row, gateway: Running) -> str:
    """Errors, what is tried again, and a stream that breaks off."""
    target = gateway.target("single-llm")
    shown = {
        "401": error_of(row, replace(target, key="sq-wrong")),
        "404": error_of(row, replace(target, model="other")),
    }
    assert "The key is unknown" in str(shown["401"])
    assert "Models are: `assistant`" in str(shown["404"])
    marker = b"broken"
    with cut_after(gateway.origin, marker) as relay:
        cut = replace(target, origin=relay)
        shown["stream cut"] = error_of(row, cut, "It was broken off here", stream=True)
    texts = [f"{case}: `{name_of(error)}`" for case, error in shown.items()]
    return "; ".join([*texts, _after_429(row, gateway)])


def _after_429(row: Row, gateway: Running) -> str:
    """Whether the client waits and tries again, and that nothing is done twice."""
    calls: list[tuple[str, object]] = []
    talk = row.begin(gateway.target("single-llm", retries=True), recorded(calls, "get_weather"))
    try:
        reply = talk.say(f"slowly {WEATHER}")
    except Exception as error:  # noqa: BLE001 - each client has its own
        return f"429: `{name_of(error)}`"
    assert "Sunny in Rome" in reply.text
    assert calls == [("get_weather", "Rome")]
    return "429: tried again"


COLUMNS: Mapping[str, Callable[[Row, Running], str]] = {
    "Answer": answer,
    "Stream": stream,
    "Tools": tools,
    "Conversation": conversation,
    "Structured output": structure,
    "A denied call looks like": denied,
    "Errors": errors,
}
