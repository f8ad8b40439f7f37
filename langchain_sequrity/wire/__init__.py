"""JSON and server-sent events to LangChain messages and back, in both directions, without I/O."""
