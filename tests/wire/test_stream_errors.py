"""Errors that a server writes into a stream, as a client reads them."""

from http import HTTPStatus

import pytest

from langchain_sequrity.errors import StatusError
from langchain_sequrity.local.turn import FORMATS
from langchain_sequrity.wire.chat_completions import client as chat_completions
from langchain_sequrity.wire.error_body import error_from_body
from langchain_sequrity.wire.exchange import Reply
from langchain_sequrity.wire.messages import client as messages
from langchain_sequrity.wire.responses import stream_reader as responses

CLIENTS = {
    "chat/completions": chat_completions.FORMAT,
    "messages": messages.FORMAT,
    "responses": responses.FORMAT,
}
ERRORS = sorted({*(status.value for status in HTTPStatus if status >= 400), 529})


@pytest.mark.parametrize("status", ERRORS)
@pytest.mark.parametrize("suffix", CLIENTS)
def test_an_error_in_a_stream_has_the_class_of_the_same_error_in_a_whole_reply(
    suffix: str, status: int
) -> None:
    reader = CLIENTS[suffix].stream_reader(lambda _: {}, {})
    reader.start(Reply(200, {}))

    with pytest.raises(StatusError, match="The store is away") as raised:
        list(reader.feed(FORMATS[suffix].write_error("The store is away.", status)))

    whole = error_from_body(status, {"detail": "The store is away."})
    assert type(raised.value) is type(whole)
