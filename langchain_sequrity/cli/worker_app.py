"""What uvicorn's supervisor gives to a worker. It imports little.

The supervisor kills a worker that does not answer within seconds, and a worker answers once this is
unpickled. So what takes long to import is pickled for itself, and unpickled afterwards.
"""

import pickle
import socket
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class WorkerApp:
    """Makes the ASGI app of a worker, in its process.

    Attributes:
        make: Makes the app with the socket; pickled in its process.
        listener: The socket of all workers.
    """

    make: Any
    listener: socket.socket

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what is in force now."""
        return WorkerApp, (pickle.dumps(self.make), self.listener)

    def __call__(self) -> Any:
        """Make the app."""
        return pickle.loads(self.make)(self.listener)  # noqa: S301 - of our own parent
