"""How often a small model plans right: twelve tasks in dual-LLM mode, with weights that one has.

`python -m benchmarks.planner` runs them (`benchmarks/RESULTS.md`). The tasks are frozen: a prompt
that was written for these very tasks would say nothing about others.
"""
