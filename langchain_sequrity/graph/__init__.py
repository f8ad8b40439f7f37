"""A user's StateGraph as a program that the service runs, one tool call per node.

```
reading, access, source      what the graph is, and which fields its nodes read and write
toolbox, compiler            GraphSpec → Program, through structured or superstep
values, channels             a state value ↔ JSON; how each field is carried
tools                        arguments → node input, node output → result
executor, surface, shell     LangGraphExecutor: a compiled graph whose hidden nodes make requests
requests, exchange           what these nodes do; requests and replies without I/O
journal, recovery, threads   what happened; a lost session; what a thread keeps
on_denied, approval          what follows a denial
explain, trace, progress     to look at
_langgraph                   every use of a name that LangGraph does not promise to keep
```

Each module has one idea; all of them are in the table of `docs/architecture.md`.
"""
