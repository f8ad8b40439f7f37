"""The demonstration: a LangGraph agent that examines the Python packages installed here.

Then the same agent, under a policy and with a planner, is to mail the report: outside, and inside.
Last, the same job as a graph of steps, which `LangGraphExecutor` runs under a policy.

| Module | Idea |
|---|---|
| `agent` | the `StateGraph`: a model, its tools, a conditional edge |
| `tools` | what the model may call |
| `packages` | the input: metadata of the installed packages as a SQLite file |
| `sql`, `reports` | SQL that can only read, files that stay in one folder |
| `mail` | mails as files in an outbox |
| `mailing` | the second act: the policy, and what it does to two requests |
| `steps` | the third act: the graph, its policy, and its runs with their traces |
| `brain`, `topics` | the offline model: it plans queries, words results, plans the mail |
| `screen`, `run`, `options` | what is seen, the run as a whole, what it may be told |
"""
