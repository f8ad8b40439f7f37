"""Clients of other vendors at a gateway, pointed at it by an address and a key alone.

`situations` has what each of them has to show, and `rows` the clients. A test fails if the table in
`docs/gateway.md` says anything else than what was seen; `python -m tests.local.clients.page` writes
it. `make clients` installs those that the development environment does not have.
"""
