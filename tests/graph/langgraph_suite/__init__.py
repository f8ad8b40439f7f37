"""LangGraph's own tests, run through the executor: `python -m tests.graph.langgraph_suite`."""
