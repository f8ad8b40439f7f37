"""Guards for tool calls side by side: the same `create_agent`, the same model, the same tools.

`python -m benchmarks.side_by_side` runs it (`benchmarks/README.md`). The model is a script: it does
the user's task, and from the moment it reads an attacker's text, it makes the attacker's calls. So
the figures say what a guard does with a model that believes everything, and nothing about a model.
"""
