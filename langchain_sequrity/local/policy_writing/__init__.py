"""Policy drafts: a model writes and the parser judges; without a model there is a skeleton.

| Module | Content |
|---|---|
| `writer` | prompts a model until its policy has no mistakes |
| `skeleton` | a cautious policy from the tools alone |
| `behaviour` | what a tool does, as far as its definition says |
"""
