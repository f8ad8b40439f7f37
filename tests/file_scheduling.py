"""`--dist loadfile` of pytest-xdist without its searches through all tests for each test."""

from collections.abc import Sequence
from typing import Any

from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]
from xdist.workermanage import WorkerController  # type: ignore[import-untyped]


class _Collection(list[str]):
    """The tests of a worker, with their places."""

    def __init__(self, nodeids: Sequence[str]) -> None:
        super().__init__(nodeids)
        self._places = {nodeid: place for place, nodeid in enumerate(nodeids)}

    def index(self, nodeid: str, *_range: Any) -> int:
        return self._places[nodeid]


class FileScheduling(LoadFileScheduling):  # type: ignore[misc]
    """Drops each test that has ended: xdist counts those that have not after every test."""

    def add_node_collection(self, node: WorkerController, collection: Sequence[str]) -> None:
        super().add_node_collection(node, collection)
        if node in self.registered_collections:
            self.registered_collections[node] = _Collection(collection)

    def mark_test_complete(
        self, node: WorkerController, item_index: int, duration: float = 0
    ) -> None:
        super().mark_test_complete(node, item_index, duration)
        nodeid = self.registered_collections[node][item_index]
        files, file = self.assigned_work[node], self._split_scope(nodeid)
        del files[file][nodeid]
        if not files[file]:
            del files[file]
