"""A user's StateGraph as a program that the service runs, one tool call per node.

```
reading, access, source      what the graph is, and which fields its nodes read and write
toolbox, compiler            GraphSpec → Program, through structured or superstep
values, channels             a state value ↔ JSON; how each field is carried
tools, call_state            arguments → node input, node output → result; the state of a call
executor, shell, calls       LangGraphExecutor: a compiled graph whose hidden nodes make requests
surface, views               what callers see: their graph, and nothing of the shell
requests, driving, exchange  what these nodes do, once for sync and async; requests without I/O
journal, recovery, threads   what happened; a lost session; what a thread keeps
denials, approval, approved  what follows a denial; a call that a human approved
explain                      to look at a graph
watching, trace, progress    to look at a run: its events, and who listens to them
_langgraph                   every use of a name that LangGraph does not promise to keep
```

Each module has one idea; all of them are in the table of `docs/architecture.md`.
"""
