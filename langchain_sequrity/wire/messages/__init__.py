"""The Messages format, Anthropic's (`docs/protocol.md`, Messages).

`client` writes requests and reads replies. `server` reads requests and writes replies.
"""
