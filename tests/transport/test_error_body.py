"""The texts and statuses in error bodies of every form."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from langchain_sequrity import errors
from langchain_sequrity.wire.error_body import (
    error_from_body,
    error_text,
)

TEXTS: list[tuple[Any, str | None]] = [
    ({"detail": "No."}, "No."),
    ({"message": "No."}, "No."),
    ({"error": {"message": "No.", "code": 7}}, "No."),
    ({"error": "No."}, "No."),
    ({"error": {"error": {"message": "No."}}}, "No."),
    ({"detail": {"message": "No.", "code": 7}}, "No."),
    ({"detail": {"error": {"message": "No."}}}, "No."),
    ({"detail": None, "message": "No."}, "No."),
    ({"detail": "", "message": "No."}, "No."),
    ({"title": "No.", "status": 400}, "No."),
    ({"detail": "Yes", "message": "no", "error": {"message": "no"}}, "Yes"),
    (
        {
            "detail": [
                {"loc": ["body", "messages", 0, "role"], "msg": "Bad role", "type": "enum"},
                {"loc": ["body", "model"], "msg": "Field required"},
            ]
        },
        "body.messages.0.role: Bad role; body.model: Field required",
    ),
    ({"detail": [{"loc": [], "msg": "Bad"}, "also"]}, "Bad; also"),
    ([{"message": "No."}], "No."),
    ("Bad\n  gateway", "Bad gateway"),
    ("<html><title>502</title> <b>Bad</b> gateway</html>", "502 Bad gateway"),
    ({"detail": "1 < 2 > 0"}, "1 < 2 > 0"),
    ({"detail": "\x1b[31mred\u202e"}, "[31mred"),
    ({"detail": None}, None),
    ({}, None),
    ([], None),
    (None, None),
    ("", None),
    (7, None),
]


@pytest.mark.parametrize(("body", "text"), TEXTS, ids=[repr(body)[:40] for body, _ in TEXTS])
def test_the_text_is_found_in_every_form_of_body(body: Any, text: str | None) -> None:
    assert error_text(body) == text


@pytest.mark.parametrize("body", [{"detail": None}, {}, None, "", {"detail": {"code": 7}}, [[]]])
def test_the_error_of_a_body_without_text_shows_no_python_values(body: Any) -> None:
    text = str(error_from_body(400, body))
    assert "None" not in text
    assert "'" not in text


def test_structures_without_a_text_are_shown_as_json() -> None:
    assert '{"code":7}' in str(error_from_body(400, {"code": 7}))
    assert "it gave no reason" in str(error_from_body(400, {}))


json = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 600) | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.sampled_from(["detail", "message", "msg", "error", "loc", "code", "type"])
            | st.text(),
            inner,
        )
    ),
)


@given(st.integers(200, 599), json)
def test_any_body_makes_an_error_whose_text_is_printable(status: int, body: Any) -> None:
    error = error_from_body(status, body)

    assert isinstance(error, errors.StatusError)
    assert str(error).isprintable()
    assert len(str(error)) < 2300
    assert error.body == body
    assert error.status is not None
    assert 400 <= error.status <= 599


def test_a_deeply_nested_body_is_read_without_an_error() -> None:
    body: Any = "deep"
    for _ in range(200):
        body = {"error": [body]}
    assert error_text(body) is None


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"error": {"code": 429}}, 429),
        ({"error": {"code": "503"}}, 503),
        ({"error": {"status": 401}}, 401),
        ({"error": {"type": "overloaded_error"}}, 529),
        ({"type": "error", "error": {"type": "rate_limit_error"}}, 429),
        ({"error": {"code": "model_not_found"}}, 404),
        ({"error": "no", "status_code": 403}, 403),
        ({"error": {"code": 7}}, 500),
        ({"error": {"code": True}}, 500),
        ({"error": {"code": "no such name"}}, 500),
        ({"error": None}, 500),
        ("text", 500),
    ],
)
def test_an_error_object_in_a_successful_reply_gives_the_status(body: Any, status: int) -> None:
    error = error_from_body(200, body)
    assert error.status == status
    assert isinstance(error, errors.status_error(status))


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "no", "code": "context_length_exceeded"}},
        {"error": {"message": "This model's maximum context length is 8192 tokens."}},
        {"detail": "prompt is too long: 210000 tokens > 200000 maximum"},
    ],
)
@pytest.mark.parametrize("status", [400, 413])
def test_a_conversation_that_is_too_long_has_its_own_error(body: Any, status: int) -> None:
    assert type(error_from_body(status, body)) is errors.ContextTooLong


def test_the_code_of_a_too_long_context_is_read_in_a_successful_reply() -> None:
    body = {"error": {"message": "no", "code": "context_length_exceeded"}}
    assert type(error_from_body(200, body)) is errors.ContextTooLong


def test_other_statuses_never_mean_a_too_long_context() -> None:
    assert type(error_from_body(500, {"detail": "prompt is too long"})) is errors.ServerFailed


# As the providers document them.
OF_PROVIDERS = {
    "invalid_request_error": 400,
    "context_length_exceeded": 400,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "model_not_found": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "api_error": 500,
    "server_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
    "another_error": 500,
}


@pytest.mark.parametrize("field", ["type", "code"])
def test_the_name_of_an_error_within_a_reply_gives_its_status(field: str) -> None:
    for name, status in OF_PROVIDERS.items():
        error = error_from_body(200, {"error": {field: name, "message": "No."}})
        assert (error.status, error.inside_reply) == (status, True), name
