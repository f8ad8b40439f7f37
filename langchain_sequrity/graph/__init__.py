"""A user's StateGraph as a program that the service runs, one tool call per node.

| Module | Content |
|---|---|
| `executor` | `LangGraphExecutor` |
| `options`, `program`, `limits` | what users say about nodes; the program and its tools; limits |
| `analysis` | the user's graph, and which fields its nodes read and write |
| `codegen` | the program text, and a tool for each node |
| `codec` | state as JSON and back |
| `dispatch` | a tool call as a node's input; its output as the result |
| `journal` | what happened in a run |
| `approval` | what follows a denial |
| `runtime` | LangGraph's own loop, and the driver that makes the requests between its steps |
| `explain`, `tracing` | `explain()`, `Trace`, `Progress` |
"""
