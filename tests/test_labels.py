"""`with_labels`: a node's update with labels that plain LangGraph ignores."""

import copy
import dataclasses
import json
import pickle
from pathlib import Path
from typing import Any, TypedDict

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.func import entrypoint, task
from langgraph.graph import START, StateGraph
from langgraph.types import Command

from langchain_sequrity import Labels, labeled_tool_result, with_labels
from langchain_sequrity.errors import UsageError
from langchain_sequrity.labels import LabeledUpdate, read_artifact

UPDATE = {"mail": "Hello", "parts": [1, 2]}
LABELS = Labels(frozenset({"inbox"}), frozenset({"ann"}), frozenset({"untrusted"}))


def labeled(update: Any = UPDATE) -> LabeledUpdate:
    return with_labels(
        update, producers=["inbox"], consumers=["ann"], tags=["untrusted"], combine="replace"
    )


class State(TypedDict, total=False):
    mail: str
    parts: list[int]


def test_with_labels_returns_an_equal_dict_with_labels_as_attributes() -> None:
    update = labeled()
    assert isinstance(update, dict)
    assert update == UPDATE
    assert list(update) == list(UPDATE)
    assert json.loads(json.dumps(update)) == UPDATE
    assert (update.labels, update.combine) == (LABELS, "replace")
    assert "inbox" in repr(update)


def test_with_labels_without_labels_has_empty_labels() -> None:
    assert with_labels({}).labels == Labels()
    assert with_labels({}).combine == "merge"


def test_the_given_update_is_copied() -> None:
    given = {"mail": "Hello"}
    update = labeled(given)
    given["mail"] = "changed"
    assert update == {"mail": "Hello"}


@pytest.mark.parametrize(
    "again",
    [copy.copy, copy.deepcopy, lambda one: one.copy(), lambda one: pickle.loads(pickle.dumps(one))],
    ids=["copy", "deepcopy", "dict.copy", "pickle"],
)
def test_copies_keep_the_labels(again: Any) -> None:
    update = again(labeled())
    assert update == UPDATE
    assert update.labels == LABELS
    assert update.combine == "replace"


def test_a_new_dict_made_from_it_has_no_labels() -> None:
    assert type({**labeled()}) is dict
    assert type(labeled() | {"more": 1}) is dict


def test_a_command_with_it_works_with_repr_and_asdict() -> None:
    command = Command(update=labeled(), goto="b")
    assert "Hello" in repr(command)
    assert dataclasses.asdict(command)["update"] == UPDATE


def test_langgraphs_serializer_stores_the_update() -> None:
    serializer = JsonPlusSerializer(pickle_fallback=False)
    kind, data = serializer.dumps_typed({"update": labeled()})
    assert kind == "msgpack"
    assert serializer.loads_typed((kind, data)) == {"update": UPDATE}


@pytest.mark.parametrize(
    "wrap", [labeled, lambda: Command(update=labeled())], ids=["update", "command"]
)
async def test_plain_langgraph_runs_checkpoints_and_streams_it(wrap: Any) -> None:
    graph = StateGraph(State)
    graph.add_node("read", lambda _: wrap())
    graph.add_edge(START, "read")
    compiled = graph.compile(checkpointer=InMemorySaver())
    config: Any = {"configurable": {"thread_id": "1"}}
    assert compiled.invoke({}, config) == UPDATE
    assert compiled.get_state(config).values == UPDATE
    assert await graph.compile().ainvoke({}) == UPDATE
    assert list(graph.compile().stream({}, stream_mode="updates")) == [{"read": UPDATE}]


def test_a_task_that_returns_it_is_stored() -> None:
    @task
    def read() -> dict[str, Any]:
        return labeled()

    @entrypoint(checkpointer=InMemorySaver())
    def run(_: Any) -> dict[str, Any]:
        return read().result()

    assert run.invoke({}, {"configurable": {"thread_id": "1"}}) == UPDATE


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"tags": ["__non_executable"]}, "__non_executable"), ({"producers": ["*"]}, "as the only name"),
        ({"producers": "inbox"}, r"\['inbox'\]"), ({"combine": "add"}, "`merge`, `replace` or `ignore`"),
        ({"update": [("a", 1)]}, "got list"), ({"update": None}, "got NoneType"), ({"update": Path()}, "as a dict"),
    ],
    ids=str,
)  # fmt: skip
def test_invalid_arguments_are_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        with_labels(**{"update": {"a": 1}, **change})


def test_labels_are_read_back_as_written() -> None:
    assert Labels.from_wire(json.loads(json.dumps(LABELS.to_wire()))) == LABELS
    assert Labels.from_wire({}, absent=LABELS) == LABELS
    assert Labels.from_wire({**LABELS.to_wire(), "origin": 1}, unknown="ignore") == LABELS


@pytest.mark.parametrize("options", [{}, {"absent": Labels()}, {"unknown": "ignore"}], ids=str)
@pytest.mark.parametrize(
    "change",
    [None, [], "tags", 7, {"tags": "web"}, {"tags": None}, {"tags": [1]}, {"tags": {"web": 1}},
     {"tags": ("web",)}, {"consumers": [["ann"]]}, {"producers": "*"}],
    ids=str,
)  # fmt: skip
def test_malformed_labels_are_never_read_as_fewer(change: Any, options: dict[str, Any]) -> None:
    meta = {**LABELS.to_wire(), **change} if isinstance(change, dict) else change
    with pytest.raises(UsageError, match="three lists of names"):
        Labels.from_wire(meta, **options)


def test_missing_lists_and_unknown_keys_are_refused() -> None:
    lacking: dict[str, Any] = {"producers": [], "consumers": []}
    for meta, options in (
        (lacking, {}),
        (lacking, {"unknown": "ignore"}),
        ({**LABELS.to_wire(), "tag": ["web"]}, {}),
        ({"tag": ["web"]}, {"absent": Labels()}),
    ):
        with pytest.raises(UsageError, match="three lists of names"):
            Labels.from_wire(meta, **options)


def test_labels_are_sealed_with_their_own_key_if_there_is_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SEQURITY_LABEL_KEY", "of labels")
    monkeypatch.setenv("SEQURITY_API_KEY", "old")
    _, artifact = labeled_tool_result("", tags=["x"])
    monkeypatch.setenv("SEQURITY_API_KEY", "new")
    read = read_artifact(artifact)
    assert read is not None
    assert read[0].tags == {"x"}
