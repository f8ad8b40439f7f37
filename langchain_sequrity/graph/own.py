"""Names of what the shell adds to a user's graph: nodes, channels, keys of `configurable`.

See `running.shell` for what the nodes do.
"""

OWN_PREFIX = "__sequrity_"
"""How all of them begin; a graph of the user's has no such names."""

BEGIN, DRIVE, ROUTE = "__sequrity_begin__", "__sequrity_drive__", "__sequrity_route__"
PAUSE, CLEAR = "__sequrity_pause__", "__sequrity_clear__"
APPROVE, DENY = "__sequrity_approve__", "__sequrity_deny__"
OWN_NODES = (BEGIN, DRIVE, ROUTE, PAUSE, CLEAR, APPROVE, DENY)

RUN, JOURNAL, GIVEN = "__sequrity_run__", "__sequrity_journal__", "__sequrity_given__"
OWN_CHANNELS = (RUN, JOURNAL, GIVEN)

LIMIT_KEY = "__sequrity_recursion_limit"
"""Key with the recursion limit that the caller gave for the graph."""

PAUSE_KEY = "__sequrity_interrupt_after"
"""Key with the nodes after which the run pauses."""

RUN_KEY = "__sequrity_run_id__"
"""Key with what tells this run from others: `{"id": …, "graph": …}`."""


def is_own(name: str) -> bool:
    """Whether a name is not of the user's graph."""
    return name.startswith(OWN_PREFIX)
