"""Limits of a run, a program and a value.

`recursion_limit` is LangGraph's own: its loop, which `runtime/loop.py` extends, counts the steps of
a run and ends it. The limits of a program never end a run: when a program has reached one, the
driver starts a new one where it stopped. So neither a session nor a request grows with the run.
"""

STEPS_PER_PROGRAM = 200
"""How many steps one program takes at most."""

PACKETS_PER_PROGRAM = 200
"""How many packets of `Send` one program takes at most, in all its steps."""

ROUNDS_PER_LOOP = 22
"""Rounds of each of a program's three nested loops: 22³ = 10,648 in all.

They are more than its steps, also than the 10,000 that programs of earlier versions could take.
"""

PROGRAM_CHARACTERS = 80_000
"""Characters of a program. The local server takes 100,000, and 20,000 nodes of a syntax tree."""

IF_DEPTH = 8
"""Levels of `if` in `if` in a program. Python itself stops at 100 levels of indentation."""

TOOL_NAME_CHARACTERS = 64
"""Characters of a tool's name that every provider takes."""

TEXT_CHARACTERS = 2_000_000
"""Characters of a text that goes to the service. A longer one stays on the client.

The programs of the local server take no longer texts.
"""

TEXT_BYTES = 5_000_000
"""Bytes of its JSON. The local server's programs make no larger calls."""

VALUE_DEPTH = 64
"""Nesting levels of a value. With those of the request around it they stay below 100, where some
servers stop."""

UPDATES_PER_JOURNAL = 950
"""After how many updates a checkpoint holds the whole journal.

The other checkpoints hold only what is new, so the storage of a run is linear in its steps. A
reader of the journal walks back to a whole one. SQLite before 3.32 walks at most 999 steps.
"""
