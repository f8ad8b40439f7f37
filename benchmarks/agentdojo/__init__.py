"""AgentDojo end to end, offline: tasks that end, and attacks that pass, under a policy.

`python -m benchmarks.agentdojo` runs it (`benchmarks/README.md`). A planner that writes perfect
programs and a reader that answers perfectly take the place of models. So the figures say what the
policy and the labels do, and nothing about a model.
"""
