"""The chat/completions format (`docs/protocol.md`, Chat completions).

`client` writes requests and reads replies. `server` reads requests and writes replies.
"""
