"""Names of what an executor adds to a user's graph: channels, and keys of `configurable`."""

OWN_PREFIX = "__sequrity_"
"""How all of them begin; a graph of the user's has no such names."""

RUN, JOURNAL = "__sequrity_run__", "__sequrity_journal__"
"""Channels: what is known of the run, and what happened in it."""

STEP = "__sequrity_step__"
"""Channel that each step of a run writes: what is newer was written by somebody else.

Its value is how many replies of the run are in the journal."""

OUTPUT = "__sequrity_output__"
"""What stands for a channel where a node's output is stored before its router runs."""


def is_own(name: str) -> bool:
    """Whether a name is not of the user's graph."""
    return name.startswith(OWN_PREFIX)
