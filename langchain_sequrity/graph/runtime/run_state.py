"""The states of a run in this process, and all ways from one to another.

    UNREAD ──────────► AT_INPUT                the thread: no run, a finished one, or a new input
       │                   │ begin
       │ begin, resume     ▼
       └──────────────► RUNNING ◄───────────┐  the service waits for results, tasks for calls
                         │  │ │             │
            final value  │  │ │ denial      │  begin: from LangGraph's state
                         ▼  │ ▼             │
                     ENDED  │ REFUSED       │  no more calls in this program; no more in this run
                         │  │ │             │
                         │  ▼ ▼             │
                         ├► LEFT ───────────┤  LangGraph's state is no longer the program's
                         └──────────────────┘
    from all of them: FAILED                   an error, or a human who rejected a call

Where to look (`Driver`, if no other class is named):

- The stored record decides whether an input, a stored run or a new one comes: `_restore`,
  `_resume`.
- A program begins, in the session of the thread or in a new one: `_begin`.
- Results are sent until the service waits for a task, denies a call or ends:
  `_send_known_results`, `_handle_answer`.
- A task waits for its call, and the first one that finds all results makes the requests: `Waiting`.
- A denial stops the step, or is offered to a human: `_deny`.
- A fork, an approved call or a lost session: a new session replays the program (`_replay`).
- LangGraph has a state that the program cannot have; the next step begins a run with it: `_leave`.
- The graph ends, so the program must have ended: `finish`.
"""

from enum import Enum


class RunState(Enum):
    """Where a run is; the value says it in words."""

    UNREAD = "nothing of the thread has been read"
    AT_INPUT = "no program runs, and an input comes first"
    RUNNING = "the program runs"
    ENDED = "the program has ended"
    REFUSED = "a denial has ended the run with a state"
    LEFT = "the program no longer has the state of the graph"
    FAILED = "an error has ended the run"

    def check_next(self, state: "RunState") -> None:
        """Check that a state may follow this one.

        Raises:
            RuntimeError: If it may not; this is a mistake in the driver.
        """
        if state is not RunState.FAILED and state not in _NEXT[self]:
            msg = f"A run of which {self.value!r} holds cannot become one of which {state.value!r}."
            raise RuntimeError(msg)


_NEXT: dict[RunState, frozenset[RunState]] = {
    RunState.UNREAD: frozenset({RunState.AT_INPUT, RunState.RUNNING, RunState.REFUSED}),
    RunState.AT_INPUT: frozenset({RunState.RUNNING}),
    RunState.RUNNING: frozenset(
        {RunState.RUNNING, RunState.ENDED, RunState.REFUSED, RunState.LEFT}
    ),
    RunState.ENDED: frozenset({RunState.RUNNING, RunState.LEFT}),
    RunState.REFUSED: frozenset({RunState.REFUSED, RunState.RUNNING, RunState.LEFT}),
    RunState.LEFT: frozenset({RunState.LEFT, RunState.RUNNING}),
    RunState.FAILED: frozenset(),
}
