"""A tool call on this side: arguments → what a node gets; its output → the result."""
