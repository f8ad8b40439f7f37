"""A user's StateGraph as a program that the service runs, one tool call per node.

```
reading      StateGraph → GraphSpec; which fields its nodes read and write
compiling    GraphSpec → Program
carrying     a state value ↔ JSON; how each field is carried
calling      arguments → node input, node output → result
keeping      what happened in a run; what a thread keeps
denying      what follows a denial; a call that a human approved
running      the shell: a compiled graph whose hidden nodes make requests
looking      explain(), Trace, Progress
executor     LangGraphExecutor, which puts the parts together
surface      what callers see: their graph, and nothing of the shell
outside      what may not be done to a run from outside
mismatch     rules of the policy that protect nothing in this graph
options      what a user says about nodes and routers; on_denied: about denials
program, own what all of them speak of: the program and its tools; names of the shell's own
_langgraph   every use of a name that LangGraph does not promise to keep
```

Each module has one idea; all of them are in the table of `docs/architecture.md`.
"""
