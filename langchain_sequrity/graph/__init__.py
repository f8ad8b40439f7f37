"""A user's StateGraph as a program that the service runs, one tool call per node.

```
reading      StateGraph → GraphSpec; which fields its nodes read and write
compiling    GraphSpec → Program
carrying     a state value ↔ JSON; how each field is carried
calling      arguments → node input, node output → result
keeping      what happened in a run
denying      what follows a denial; a call that a human approved
running      LangGraph's own loop, and the driver that tells the service between its steps
looking      explain(), Trace, Progress
executor     LangGraphExecutor, which puts the parts together
surface      the executor as a graph: what LangGraph offers, and nothing of our own in it
splitting    which nodes may run side by side
mismatch     rules of the policy that protect nothing in this graph
options      what a user says about nodes and routers
program, own what all of them speak of: the program and its tools; names of what is added
_langgraph   every use of a name that LangGraph does not promise to keep
```

Each module has one idea; all of them are in the table of `docs/architecture.md`.
"""
