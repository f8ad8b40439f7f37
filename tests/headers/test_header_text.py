import json
from typing import Any

import h11
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_sequrity.errors import UsageError
from langchain_sequrity.headers import (
    ConfigHeader,
    FeaturesHeader,
    FsmConfig,
    Header,
    PolicyCodes,
    PolicyHeader,
    from_wire,
    normalized,
    read_header,
    validate_header,
    write_header,
)
from tests.headers.header_strategies import HEADERS, headers, models

TRICKY = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from('\r\n\t\0\x7f"\\/ 漢字🦊\u2028')
)


@given(headers)
def test_a_written_header_is_read_back(header: Header) -> None:
    assert read_header(type(header), write_header(header), unknown="keep") == header.compacted()


@given(headers)
def test_equal_headers_have_equal_texts(header: Header) -> None:
    again = read_header(type(header), write_header(header), unknown="keep")
    assert write_header(again) == write_header(header)
    assert again.to_header() == write_header(header)
    assert hash(again) == hash(header.compacted())


@pytest.mark.long(sample=1)
@pytest.mark.parametrize("cls", HEADERS)
@given(data=st.data())
def test_headers_without_extra_pass_strict_reading(cls: type[Header], data: st.DataObject) -> None:
    header = data.draw(models(cls, plain=True))
    assert cls.from_header(header.to_header()) == header.compacted()


@given(TRICKY, TRICKY)
def test_any_text_makes_a_safe_header_value(code: str, name: str) -> None:
    policy = PolicyHeader(
        codes=PolicyCodes(code=code, language="cedar"), extra={f"x{name}": [name]}
    )
    value = write_header(policy)
    raw = value.encode("ascii")
    assert all(0x20 <= byte < 0x7F for byte in raw)
    assert httpx.Headers({"X-Policy": value})["x-policy"] == value
    sent = h11.Request(method="GET", target="/", headers=[(b"Host", b"a"), (b"X-Policy", raw)])
    assert dict(sent.headers)[b"x-policy"] == raw
    wire = {"codes": {"code": code, "language": "cedar"}, f"x{name}": [name]}
    assert json.loads(value) == wire


def test_sets_are_written_in_sorted_order() -> None:
    one = FeaturesHeader.dual_llm(blockers={"url_blocker", "file_blocker"})
    assert one.to_header() == (
        '{"agent_arch":"dual-llm","content_blockers":[{"name":"file_blocker"},'
        '{"name":"url_blocker"}]}'
    )


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (
            PolicyHeader(codes=PolicyCodes(code="let a={};\ud800", language="cedar")),
            "`codes.code` is not JSON: .* without lone surrogates",
        ),
        (
            ConfigHeader(extra={"a": [1]}).model_copy(update={"fsm": ["\udc00"]}),
            r"`fsm\[0\]` is not JSON",
        ),
        (FeaturesHeader().model_copy(update={"agent_arch": object()}), "`agent_arch` is not JSON"),
    ],
)
def test_a_value_that_json_cannot_express_is_refused_when_written(
    header: Header, words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        write_header(header)


def nested(levels: int) -> Any:
    value: Any = {}
    for _ in range(levels - 1):
        value = {"a": value}
    return value


def test_writing_and_reading_allow_the_same_depth() -> None:
    deepest = FeaturesHeader(extra=nested(32))
    assert read_header(FeaturesHeader, deepest.to_header(), unknown="keep") == deepest
    section = ConfigHeader(fsm=FsmConfig(extra=nested(32)))
    with pytest.raises(UsageError, match="nested more than 32 levels"):
        write_header(section)


BAD: list[tuple[Any, str]] = [
    ("", "Invalid JSON: the text is empty. Send one JSON object, such as"),
    ("{", "Invalid JSON: Expecting property name"),
    ('{"fsm":\n tru}', "at line 2, column 2."),
    ("{'fsm': {}}", "Invalid JSON: "),
    ('{"fsm":{},}', "Invalid JSON: "),
    ("{} {}", "Invalid JSON: Extra data at line 1, column 4."),
    ("\ufeff{}", "Invalid JSON: "),
    ('{"a":"\n"}', "Invalid JSON: Invalid control character"),
    ('{"a":NaN}', "Invalid JSON: `NaN` is not a JSON number."),
    ('{"a":-Infinity}', "Invalid JSON: `-Infinity`"),
    ('{"a":1e999}', "Invalid JSON: a number is too large."),
    ('{"a":' + "9" * 6000 + "}", "Invalid JSON: an integer has more than 64 bits."),
    ('{"fsm":{"max_n_turns":9223372036854775808}}', "`fsm.max_n_turns` is not JSON"),
    ("[]", "Expected a JSON object; got a list. Send one JSON object, such as"),
    ("null", "got null."),
    ("true", "got true."),
    ('"{}"', "got text."),
    ("1.5", "got 1.5."),
    ('{"fsm":{},"fsm":{}}', "The key `fsm` occurs twice"),
    ('{"fsm":{"a":1,"\\u0061":2}}', "The key `a` occurs twice"),
    ('{"a":' * 33 + "1" + "}" * 33, "nested more than 32 levels"),
    ("[" * 200_000, "nested more than 32 levels"),
    ('{"a":"\\ud800"}', "`a` is not JSON: "),
    ('{"fsm":3}', "`fsm`: Input should be a valid dictionary or instance of FsmConfig; got 3."),
    ('{"fsm":{"max_n_turns":0,"clear_session_meta":"x"}}', "`fsm.clear_session_meta`: "),
    ('{"fsm":{"force_to_cache":["a","("]}}', "`fsm.force_to_cache[1]`: "),
    ('{"fsm":{"force_to_cache":{"a":1}}}', "got an object."),
    ('{"prompt":{"qllm":{"flavours":1}}}', "`prompt.qllm`: Unknown field `flavours`"),
    (b"{}", "Expected JSON text; got a `bytes`."),
    (None, "got null."),
    (2**70, "got a huge integer."),
]


@pytest.mark.parametrize(("text", "words"), BAD)
def test_bad_text_is_refused_with_position_or_path(text: Any, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_header(ConfigHeader, text)
    assert words in str(caught.value)
    reply = validate_header(ConfigHeader, text)
    assert reply["valid"] is False
    assert reply["normalized"] is None
    assert any(words in sentence for sentence in reply["errors"])


def test_errors_about_missing_fields_and_nulls_do_not_describe_the_input() -> None:
    text = '{"content_classifiers":[{"threshold":null}]}'
    assert validate_header(FeaturesHeader, text)["errors"] == [
        "`content_classifiers[0].name`: Field required.",
        (
            "`content_classifiers[0].threshold`: Input may not be null; leave the field out to "
            "keep the server's setting."
        ),
    ]


def test_errors_do_not_show_given_texts() -> None:
    reply = validate_header(ConfigHeader, '{"fsm":{"max_n_turns":"sk-secret"}}')
    assert reply["errors"] == ["`fsm.max_n_turns`: Input should be a valid integer; got text."]


def test_a_long_list_of_errors_is_cut() -> None:
    reply = validate_header(FeaturesHeader, json.dumps({"content_blockers": [{}] * 1000}))
    assert len(reply["errors"]) == 11
    assert reply["errors"][-1] == "990 more problems were found."


@given(st.text() | headers.map(write_header))
def test_validate_header_never_raises(text: str) -> None:
    for cls in HEADERS:
        reply = validate_header(cls, text)
        assert set(reply) == {"valid", "normalized", "errors"}
        assert reply["valid"] == (not reply["errors"]) == (reply["normalized"] is not None)


def test_the_normalized_form_has_every_top_level_field() -> None:
    reply = validate_header(FeaturesHeader, '{"agent_arch": "dual-llm"}')
    assert reply == {
        "valid": True,
        "normalized": {
            "agent_arch": "dual-llm",
            "content_classifiers": None,
            "content_blockers": None,
        },
        "errors": [],
    }
    assert normalized(ConfigHeader(extra={"new": 1})) == {
        "fsm": None,
        "prompt": None,
        "response_format": None,
        "llm": None,
        "new": 1,
    }


def test_non_ascii_text_is_read_escaped_or_not() -> None:
    for text in ('{"codes":{"code":"// mäher"}}', '{"codes":{"code":"// m\\u00e4her"}}'):
        assert read_header(PolicyHeader, text).to_wire() == {"codes": {"code": "// mäher"}}


def test_a_policy_given_as_a_plain_string_is_read() -> None:
    policy = read_header(PolicyHeader, '{"codes":"let a={};"}')
    assert policy == PolicyHeader.from_sqrt("let a={};")


def test_parsed_json_is_checked_by_the_same_rules() -> None:
    assert from_wire(ConfigHeader, {"fsm": {}}) == ConfigHeader(fsm=FsmConfig())
    with pytest.raises(UsageError, match="Unknown field `extra`"):
        from_wire(ConfigHeader, {"extra": {}})


@pytest.mark.parametrize("code", [*range(0x20), 0x7F, *range(0x80, 0xA0)])
def test_no_control_character_is_in_the_value_of_a_header(code: int) -> None:
    config = ConfigHeader.model_validate({"extra": {"text": f"a{chr(code)}b"}})
    value = config.to_header()
    assert value.isascii()
    assert value.isprintable()
    assert ConfigHeader.from_header(value, unknown="keep") == config
