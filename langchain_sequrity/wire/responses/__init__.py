"""The Responses format, OpenAI's newer one (`docs/protocol.md`, Responses).

`client` and `stream_reader` are the client's side, `server` and `stream_writer` the server's.
`items` reads items of the assistant, which both sides receive.
"""
