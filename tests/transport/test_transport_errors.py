"""All failures become errors of the package, with readable texts and without keys."""

import base64
import html
import json
import re
import traceback
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, unquote

import httpcore
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_sequrity import errors
from langchain_sequrity.errors import SequrityError, StatusError
from langchain_sequrity.transport import RetryPolicy, Transport
from langchain_sequrity.transport.http11 import Origin
from langchain_sequrity.transport.redaction import Redactor
from langchain_sequrity.transport.retry import network_error
from langchain_sequrity.transport.timeouts import Deadline
from langchain_sequrity.wire.exchange import ServiceCall
from tests.transport.transport_helpers import (
    ASEND,
    FIRST_TURN,
    IN_SESSION,
    KEY,
    PATH,
    SEND,
    Body,
    RawServer,
    Reader,
    Script,
    Way,
    closes,
    http,
    mocked,
    says,
)

ONCE = RetryPolicy(max_retries=0)
ORIGIN = Origin(b"https", b"service.example", 443)
# Exceptions that mean a mistake of the caller, not a failure of the network.
PROGRAMMING = {httpx.CookieConflict, httpcore.ConnectionNotAvailable}


def all_subclasses(*roots: type[Exception]) -> Iterator[type[Exception]]:
    for root in roots:
        yield root
        yield from all_subclasses(*root.__subclasses__())


def exceptions_of(library: Any) -> set[type[Exception]]:
    named = (getattr(library, name) for name in library.__all__)
    return {
        found
        for found in named
        if isinstance(found, type)
        and issubclass(found, Exception)
        and not issubclass(found, httpx.StreamError)
    } - PROGRAMMING


@pytest.mark.parametrize(
    "kind",
    sorted(
        {*exceptions_of(httpx), *exceptions_of(httpcore), *all_subclasses(httpx.HTTPError)},
        key=str,
    ),
    ids=str,
)
def test_every_exception_of_the_http_libraries_becomes_a_sequrity_error(
    kind: type[Exception],
) -> None:
    fault = kind.__new__(kind, "it failed")
    if isinstance(fault, httpx.HTTPStatusError):
        fault.response = httpx.Response(418)

    error = network_error(fault, Deadline(), ORIGIN)

    assert isinstance(error, SequrityError)
    assert "https://service.example" in str(error) or isinstance(error, StatusError)


@pytest.mark.parametrize(
    "kind", [ValueError, TypeError, RuntimeError, KeyError, httpx.StreamClosed]
)
def test_a_programming_error_is_raised_unchanged(way: Way, kind: Callable[[], Exception]) -> None:
    mistake = kind() if kind is httpx.StreamClosed else kind("mine")  # type: ignore[call-arg]
    with pytest.raises(type(mistake)) as caught:
        way.call(mocked(Script(mistake)))

    assert caught.value is mistake


async def test_an_exception_of_a_readers_code_is_raised_unchanged_and_closes_the_reply(
    way: Way,
) -> None:
    mistake = KeyError("mine")

    def broken(*_: Any) -> Any:
        raise mistake

    class Broken(Reader):
        feed: Any = broken

    async def call() -> None:
        if way.streams and way.is_async:
            await anext(transport.astream(FIRST_TURN, Broken))
        elif way.streams:
            next(transport.stream(FIRST_TURN, Broken))
        elif way.is_async:
            await transport.asend(FIRST_TURN, broken)
        else:
            transport.send(FIRST_TURN, broken)

    body = Body(way.success().content)
    headers = way.success().headers
    transport = mocked(lambda _: httpx.Response(200, headers=headers, stream=body))
    with pytest.raises(KeyError) as caught:
        await call()

    assert caught.value is mistake
    assert body.closed == 1


def test_a_redirect_is_an_error_that_names_status_and_origin_only(way: Way) -> None:
    location = f"https://elsewhere.example/path?key={KEY}"
    script = Script(httpx.Response(307, headers={"Location": location}))

    with pytest.raises(errors.BadReply, match=r"307.*`https://elsewhere\.example`") as caught:
        way.call(mocked(script))

    assert "path" not in str(caught.value).partition("elsewhere")[2]
    assert caught.value.status == 307
    assert len(script.requests) == 1


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("/login", "another path"),
        ("http://x:port", "unreadable"),
        ("http://xn--", "unreadable"),
        ("", "another"),
    ],
)
def test_a_redirect_to_a_path_or_an_invalid_address_is_a_bad_reply(
    serve: Callable[..., RawServer], way: Way, location: str, said: str
) -> None:
    reply = f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
    with pytest.raises(errors.BadReply, match=said):
        way.call(Transport(serve(says(reply.encode())).url))


@pytest.mark.parametrize("session", ["zoë", "a\tb", "a" * 1025], ids=["ë", "tab", "long"])
def test_a_session_that_no_request_could_name_is_a_bad_reply(
    serve: Callable[..., RawServer], way: Way, session: str
) -> None:
    success = way.success()
    media = success.headers["content-type"]
    reply = http(success.content, media=f"{media}\r\nX-Session-ID: {session}")

    with pytest.raises(errors.BadReply, match="`X-Session-ID`") as caught:
        way.call(Transport(serve(says(reply)).url), IN_SESSION)

    assert caught.value.session_id == IN_SESSION.session_id


def test_a_web_page_instead_of_an_answer_is_a_bad_reply_with_status(way: Way) -> None:
    with pytest.raises(errors.BadReply, match=r"`text/html`.*`base_url`") as caught:
        way.call(mocked(Script(httpx.Response(200, html="<html>Welcome</html>"))))

    assert caught.value.status == 200


def test_a_compressed_reply_is_refused(way: Way) -> None:
    content = b"\x1f\x8b"
    script = Script(way.success())
    script.answers = [way.success()]
    headers = {**way.success().headers, "content-encoding": "x-custom"}
    script.answers = [httpx.Response(200, headers=headers, content=content)]

    with pytest.raises(errors.BadReply, match="compressed"):
        way.call(mocked(script))

    assert script.requests[0].headers["accept-encoding"] == "identity"


def test_a_reply_beyond_the_limit_is_refused(way: Way) -> None:
    def handler(_request: httpx.Request) -> httpx.Response:
        mebibyte = b" " * 1024 * 1024
        content = sized(mebibyte) if not way.is_async else asized(mebibyte)
        return httpx.Response(200, headers={"content-type": "application/json"}, content=content)

    def sized(part: bytes) -> Iterator[bytes]:
        yield from [part] * 65

    async def asized(part: bytes) -> Any:
        for _ in range(65):
            yield part

    with pytest.raises(errors.BadReply, match="larger than 67108864 bytes"):
        way.call(mocked(handler))


def test_an_error_has_the_ids_and_the_body_of_the_reply(way: Way) -> None:
    headers = {
        "X-Request-ID": "req-7",
        "X-Session-ID": "sess-7",
        "Set-Cookie": "a=b",
        "Set-Cookie2": "c=d",
    }
    body = {"detail": "No such model.", "hint": {"model": "m"}}
    script = Script(httpx.Response(404, headers=headers, json=body))

    with pytest.raises(errors.NotFound, match="No such model") as caught:
        way.call(mocked(script), IN_SESSION)

    error = caught.value
    assert (error.status, error.request_id, error.session_id) == (404, "req-7", "sess-7")
    assert error.body == body
    assert error.headers["x-request-id"] == "req-7"
    assert not any(name.startswith("set-cookie") for name in error.headers)


@pytest.mark.parametrize(
    "headers",
    [{"Request-ID": "req-8"}, {"Request-ID": "other", "X-Request-ID": "req-8"}],
    ids=["request-id", "both"],
)
def test_a_server_may_name_its_request_in_either_header(headers: dict[str, str]) -> None:
    client = mocked(Script(httpx.Response(404, headers=headers)))

    with pytest.raises(errors.NotFound) as caught:
        SEND.call(client, IN_SESSION)

    assert caught.value.request_id == "req-8"


def test_an_error_without_a_reply_names_the_session_of_the_call(way: Way) -> None:
    with pytest.raises(errors.StreamInterrupted) as caught:
        way.call(mocked(Script(httpx.ReadError("reset"))), IN_SESSION)

    assert caught.value.session_id == "sess-1"
    assert caught.value.status is None


def test_a_body_that_is_not_json_is_kept_as_text(way: Way) -> None:
    page = "<html><h1>Bad Gateway</h1></html>"
    with pytest.raises(errors.ServerFailed, match="Bad Gateway") as caught:
        way.call(mocked(Script(httpx.Response(502, html=page)), retry=ONCE))

    assert caught.value.body == page


def test_an_invalid_header_is_a_usage_error_that_does_not_show_it(
    serve: Callable[..., RawServer], way: Way
) -> None:
    call = ServiceCall(PATH, ((b"X-Api-Key", f"{KEY}\r\n".encode()),), b"{}")

    with pytest.raises(errors.UsageError, match="headers you gave") as caught:
        way.call(Transport(serve(closes).url), call)

    assert KEY not in str(caught.value)


def test_a_raise_for_status_hook_of_an_injected_client_gives_our_error(is_async: bool) -> None:
    def handler(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(429, headers={"Retry-After": "99"})

    async def araise(response: httpx.Response) -> None:
        response.raise_for_status()

    mock = httpx.MockTransport(handler)
    hooks = {"response": [httpx.Response.raise_for_status]}
    transport = Transport(
        "https://service.example",
        http_client=httpx.Client(transport=mock, event_hooks=hooks),
        http_async_client=httpx.AsyncClient(transport=mock, event_hooks={"response": [araise]}),
    )

    with pytest.raises(errors.RateLimited) as caught:
        (ASEND if is_async else SEND).call(transport)

    assert caught.value.retry_after == 99


# Keys


def everything_in(error: BaseException) -> Iterator[str]:
    """All texts that can be read from an exception and from what it refers to."""
    seen: set[int] = set()
    waiting: list[Any] = [error]
    while waiting:
        item = waiting.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, BaseException):
            waiting += [item.__cause__, item.__context__, *item.args, *vars(item).values()]
        if isinstance(item, dict):
            waiting += [*item.keys(), *item.values()]
        if isinstance(item, list | tuple):
            waiting += item
        yield f"{item!r} {item}"
        if hasattr(item, "headers"):
            yield str(dict(item.headers))
    frames = [
        frame
        for frame in traceback.walk_tb(error.__traceback__)
        if "langchain_sequrity" in frame[0].f_code.co_filename
    ]
    yield from traceback.StackSummary.extract(iter(frames), capture_locals=True).format()


ECHOES = [
    httpx.Response(401, json={"detail": f"Bad key {KEY}"}),
    httpx.Response(401, json={"error": {"message": "Bad key", KEY: [KEY, {"k": KEY}]}}),
    httpx.Response(403, text=f"Bad key {KEY}"),
    httpx.Response(403, text="x" * 185 + KEY),
    httpx.Response(400, headers={"X-Echo": KEY, "X-Request-ID": KEY}),
    httpx.Response(302, headers={"Location": f"https://{KEY}.example/{KEY}"}),
    httpx.ConnectError(f"no route to {KEY}"),
    httpx.ReadError("reset"),
    httpx.ReadTimeout("slow"),
    httpx.LocalProtocolError(f"Illegal header value b'{KEY}'"),
]


@pytest.mark.parametrize("answer", ECHOES, ids=lambda answer: str(answer)[:30])
def test_no_error_contains_a_key(way: Way, answer: Any) -> None:
    with pytest.raises(SequrityError) as caught:
        way.call(mocked(Script(answer), retry=ONCE))

    assert not [text for text in everything_in(caught.value) if KEY in text]
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_an_error_of_the_network_contains_no_key(serve: Callable[..., RawServer], way: Way) -> None:
    transport = Transport(serve(closes).url, secrets=(KEY,), retry=ONCE)

    with pytest.raises(errors.StreamInterrupted) as caught:
        way.call(transport)

    assert not [text for text in everything_in(caught.value) if KEY in text]
    assert caught.value.__context__ is None


def test_an_error_raised_by_a_reader_contains_no_key(way: Way) -> None:
    with pytest.raises(errors.AuthenticationFailed) as caught:
        way.call(mocked(Script(way.error_object({"message": f"not {KEY}", "code": 401}))))

    assert "not ***" in str(caught.value)
    assert KEY not in repr(caught.value.body)


KEYS = st.text(st.sampled_from([chr(n) for n in range(33, 127) if chr(n) != "*"]), min_size=8)
WORDS = st.text(st.characters(exclude_characters="*"), max_size=30)


def quoted(text: str) -> str:
    return quote(text, safe="")


def json_escaped(text: str) -> str:
    return json.dumps(text).replace("/", "\\/")[1:-1]


def by_number(text: str) -> str:
    return "".join(f"\\u{ord(one):04X}" for one in text)


# How a server may write a piece of a key, and how to read it.
FORMS: list[tuple[Callable[[str], str], Callable[[str], str]]] = [
    (str, str),
    (str.swapcase, str.swapcase),
    (quoted, unquote),
    (lambda text: quoted(quoted(text)), lambda text: unquote(unquote(text))),
    (json_escaped, lambda text: text.replace("\\/", "/").replace('\\"', '"').replace("\\\\", "\\")),
    (by_number, lambda text: re.sub(r"\\u([0-9A-F]{4})", lambda one: chr(int(one[1], 16)), text)),
    (html.escape, html.unescape),
    ("\n".join, lambda text: text.replace("\n", "")),
    (lambda text: " ".join(re.findall(".{1,5}", text)), lambda text: text.replace(" ", "")),
]  # fmt: skip


@given(KEYS, st.data(), st.sampled_from(FORMS), st.sampled_from(["", "\n", " - "]))
def test_no_eight_characters_of_a_key_are_shown_in_any_spelling(
    key: str,
    data: st.DataObject,
    form: tuple[Callable[[str], str], Callable[[str], str]],
    between: str,
) -> None:
    write, read = form
    pieces = []
    for _ in range(data.draw(st.integers(1, 4))):
        first = data.draw(st.integers(0, len(key)))
        piece = key[first : data.draw(st.integers(first, len(key)))]
        pieces += [data.draw(WORDS), write(piece)]
    shown = Redactor((key, "")).text(between.join(pieces))
    for text in (shown, read(shown)):
        assert not [n for n in range(len(key) - 7) if key[n : n + 8] in text]


@given(KEYS, st.text(max_size=10), st.text(max_size=10), st.sampled_from(["b", "urlsafe_b"]))
def test_no_eight_characters_of_a_key_are_shown_within_base64(
    key: str, before: str, after: str, kind: str
) -> None:
    encode = getattr(base64, f"{kind}64encode")
    text = encode(f"{before}{key}{after}".encode()).decode()
    parts = Redactor((key,)).text(text).split("***")
    assert len("".join(parts)) <= len(text) - (len(key) * 8 // 6 - 2)
    assert parts[1:]


# A key with escapes of its own is masked with the text around it.
@given(KEYS.filter(lambda key: {*key}.isdisjoint("\\%&")), st.integers(0, 20), st.integers(8, 20))
def test_a_piece_of_a_key_is_masked_but_not_the_text_around_it(
    key: str, first: int, size: int
) -> None:
    piece = key[first : first + size]
    shown = Redactor((key,)).text(f"\u4e2d {piece} \u4e2d")
    assert shown == f"\u4e2d {'***' if len(piece) >= 8 else piece} \u4e2d"


@given(
    st.text(st.sampled_from("0123456789abcdef"), min_size=32),
    st.text(st.characters(exclude_characters="0123456789abcdefABCDEF")),
)
def test_a_text_without_a_part_of_the_key_is_unchanged(key: str, text: str) -> None:
    assert Redactor((key,)).text(text) == text


SAID = "No connection to `https://service.example`: refused. See e.g. an e-mail, which_is it."
WITHIN = {SAID[n : n + size] for n in range(len(SAID)) for size in range(1, 8)}
WORDS_OF_IT = {"No", "to", "https", "refused", "See", "an", "it", "is"}


@pytest.mark.parametrize("key", sorted(filter(str.isalnum, WITHIN - WORDS_OF_IT)))
def test_a_short_key_is_masked_as_a_whole_word_and_not_inside_other_words(key: str) -> None:
    shown = Redactor((key,)).text(f"{SAID} The key is {key}, it was '{key}'. Is it {key}?")
    assert shown == f"{SAID} The key is ***, it was '***'. Is it ***?"


def test_the_masking_of_an_error_does_not_reveal_a_short_key(way: Way) -> None:
    script, spoilt = Script(httpx.ConnectError("no route")), []
    for key in ("e", "on", "connect", ""):
        with pytest.raises(errors.ConnectionFailed) as caught:
            way.call(mocked(script, secrets=(key,), retry=ONCE))
        spoilt.append(str(caught.value))
    assert len(set(spoilt)) == 1


def test_masking_one_part_of_a_key_does_not_show_the_rest() -> None:
    redactor = Redactor(("user:test:AbCdEfGh12", "test"))
    assert redactor.text("the key user:test:AbCdEfGh12 &amp; a test") == "the key *** &amp; a ***"
    assert redactor.text("the key user:test%3AAbCdEfGh%31%32") == "***"


def test_keys_are_masked_at_every_depth_of_a_structure() -> None:
    redactor = Redactor(("secret", KEY, "1234567890"))
    body: object = {KEY: ["my secret", {"secrets": KEY}], "n": [1, None, True, 91234567890, 1.5]}
    masked = {"***": ["my ***", {"secrets": "***"}], "n": [1, None, True, "***", 1.5]}
    assert redactor.data(body) == masked
    assert redactor.text("secre") == "secre"
    assert repr(redactor) == "<Redactor of 3>"


@pytest.mark.parametrize("part", [KEY, KEY[-9:], KEY[6:18], KEY[:8], KEY.upper(), quoted(KEY)])
def test_no_error_contains_a_part_of_a_key(way: Way, part: str) -> None:
    answers: list[httpx.Response | Exception] = [
        httpx.Response(401, json={"detail": f"Bad key …{part}", "sent": {part: [part]}}),
        httpx.Response(403, text=f"Bad key …{part}"),
        httpx.Response(400, headers={"X-Echo": part, "X-Request-ID": part}),
        httpx.ConnectError(f"no route to {part}"),
        way.error_object({"message": f"not {part}", "code": 401}),
    ]
    for answer in answers:
        with pytest.raises(SequrityError) as caught:
            way.call(mocked(Script(answer), retry=ONCE))
        assert not [text for text in everything_in(caught.value) if part in text]


def test_a_structure_that_is_too_deep_to_search_is_masked() -> None:
    body: object = KEY
    for _ in range(500):
        body = [body]
    masked = repr(Redactor((KEY,)).data(body))
    assert KEY not in masked
    assert "***" in masked


def test_no_key_is_in_the_repr_of_a_transport_or_a_call() -> None:
    transport = mocked(Script(SEND.success()))
    assert repr(transport) == "Transport('https://service.example')"
    assert KEY not in repr(vars(transport))
    assert KEY not in repr(FIRST_TURN)


# Addresses


@pytest.mark.parametrize("ending", ["", "/", "//"])
def test_a_slash_at_the_end_of_the_base_url_does_not_matter(way: Way, ending: str) -> None:
    script = Script(way.success())
    mock = httpx.MockTransport(script)
    transport = Transport(
        f"https://service.example/prefix{ending}",
        http_client=httpx.Client(transport=mock),
        http_async_client=httpx.AsyncClient(transport=mock),
    )

    way.call(transport)

    assert str(script.requests[0].url) == f"https://service.example/prefix{PATH}"


@pytest.mark.parametrize(
    ("base_url", "problem"),
    [
        ("ftp://service.example", "must be an http"),
        ("https://xn--", "must be an http"),
        ("https://service.example:65536", "must be an http"),
        ("service.example", "must be an http"),
        ("", "must be an http"),
        ("https://", "must be an http"),
        ("https://service.example:port", "must be an http"),
        (f"https://me:{KEY}@service.example", "must not hold credentials"),
        (f"https://me:{KEY}@service.example:port", "must be an http"),
        (f"ftp://service.example?key={KEY}", "must be an http"),
        ("https://service.example?a=b", "query"),
        ("https://service.example#a", "fragment"),
    ],
)
def test_an_address_that_cannot_work_is_refused(base_url: str, problem: str) -> None:
    with pytest.raises(errors.UsageError, match=problem) as caught:
        Transport(base_url)

    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://h.example", "https://h.example"),
        ("https://h.example:443/x", "https://h.example"),
        ("http://h.example:8080", "http://h.example:8080"),
        ("http://[::1]:80", "http://[::1]"),
    ],
)
def test_an_origin_is_shown_as_in_a_url(url: str, shown: str) -> None:
    assert str(Origin.from_url(httpx.URL(url))) == shown
