"""`"planner,worker"`: the field `model`, which names one model or two (`docs/protocol.md`).

The planner writes programs. The worker reads data, and one name alone is for both.
"""


def split_models(model: str) -> tuple[str, str]:
    """The names of planner and worker."""
    planner, _, worker = model.partition(",")
    planner = planner.strip()
    return planner, worker.strip() or planner


def join_models(planner: str, worker: str) -> str:
    """Both names, in the form of replies."""
    return f"{planner},{worker}"


def has_two_models(model: object) -> bool:
    """Whether the field names two models; in a reply this marks a dual-LLM session."""
    return "," in str(model)
