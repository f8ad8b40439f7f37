"""An agent and a graph under a policy, and a document that tries to control them.

Run it with `make demo`, or with `python -m examples.demo` from the root of the repository.
"""
