"""The graph as a program: a tool for each node and router, and the text that calls them."""
