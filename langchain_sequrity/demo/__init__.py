"""The demonstration: a LangGraph agent that examines the Python packages installed here.

| Module | Idea |
|---|---|
| `agent` | the `StateGraph`: a model, its tools, a conditional edge |
| `tools` | what the model may call |
| `packages` | the input: metadata of the installed packages as a SQLite file |
| `sql`, `reports` | SQL that can only read, files that stay in one folder |
| `brain`, `topics` | the offline model: it plans queries and words what they returned |
| `screen`, `run`, `options` | what is seen, the run as a whole, what it may be told |
"""
