"""Random conversations in all ways of enforcement, checked against one policy engine.

A conversation has 2 to 12 turns. Between them histories are cut, edited and forked, models and
processes change. One engine is told each call that ran and each attempt that was denied. No call may
run that this engine denies, unless an error said before that the session is lost and the caller
accepted it.

`cases` makes conversations from numbers. `script` is what the models do, `ledger` what the tools did
and the engine that judges it. `chats` and `graphs` lead conversations, and `play` plays a case.

`python -m tests.session_oracle --count 5000` plays 5,000 conversations.
"""
