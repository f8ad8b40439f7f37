"""Generate policies from a description: `PolicyGenTool` and its results.

Example:
    ```python
    from langchain_sequrity import ChatSequrity
    from langchain_sequrity.local import LocalServer
    from langchain_sequrity.policy_generation import PolicyGenTool


    def send_mail(to: str, text: str) -> str:
        "Send a mail."
        return "sent"


    with LocalServer() as server:
        model = ChatSequrity("any/model", base_url=server.base_url)
        policy = PolicyGenTool(model, [send_mail]).generate("Mails must contain nothing untrusted.")
        print(policy.codes.code)  # read it before you use it
        guarded = model.model_copy(update={"policy": policy})
    ```
"""

from langchain_sequrity.policy_generation.proposal import (
    BadPolicy,
    NoPolicy,
    PolicyPart,
    PolicyProposal,
    PolicyTooLong,
    PolicyWarning,
)
from langchain_sequrity.policy_generation.tool import PolicyGenTool

__all__ = [
    "BadPolicy",
    "NoPolicy",
    "PolicyGenTool",
    "PolicyPart",
    "PolicyProposal",
    "PolicyTooLong",
    "PolicyWarning",
]
