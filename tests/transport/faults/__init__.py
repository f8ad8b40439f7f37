"""A real TCP proxy between our clients and a real server, which damages replies and connections.

`python -m tests.transport.faults --count 100000` makes so many calls through it.
"""
