"""Writing policies: a model writes, the parser judges; without a model there is a skeleton.

| Module | Idea |
|---|---|
| `writer` | asking for a policy until one has no mistakes |
| `prompts`, `sample` | what the model is told; whether it gives the sample back |
| `skeleton` | a cautious policy made of the tools alone |
| `behaviour` | what a tool does, as far as its definition tells |
"""
