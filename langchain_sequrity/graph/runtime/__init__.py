"""A run: LangGraph's loop runs the nodes, a driver makes the requests between its steps."""
