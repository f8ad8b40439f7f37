"""JSON and server-sent events to LangChain messages and back, for both sides, without I/O."""
