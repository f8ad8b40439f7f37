"""A SQL agent: list tables, read their schema, write a query, validate, run, and try again."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, Literal, TypedDict

import pytest
from langgraph.graph import StateGraph

from langchain_sequrity import ChatSequrity
from tests.graph.apps.scripted import ScriptedModel, same_as_langgraph

_MUSIC = """
create table artist (id integer primary key, name text);
create table album (id integer primary key, artist_id integer, title text);
insert into artist values (1, 'Bach'), (2, 'Coltrane');
insert into album values (1, 2, 'Blue Train'), (2, 2, 'Giant Steps'), (3, 1, 'Fugues');
"""


class SqlState(TypedDict, total=False):
    question: str
    tables: list[str]
    schema: str
    query: str
    problem: str
    attempts: int
    rows: list[tuple[Any, ...]]
    answer: str


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "music.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(_MUSIC)
    return path


QUERIES = {
    "how many albums?": ["select count(*) from albums", "select count(*) from album"],
    "drop it": ["drop table album", "delete from album", "update album set title = ''"],
    "albums of Coltrane": ["select title from album where artist_id = 2 order by title"],
}


def answer(messages: Any) -> str:
    question, _, attempt = messages[-1].text.partition("|")
    return QUERIES[question][int(attempt)]


llm = ScriptedModel(answer=answer)


class SqlAgent:
    """The agent's nodes over one database, which is opened read-only for each query."""

    def __init__(self, database: Path) -> None:
        self._address = f"file:{database}?mode=ro"

    def _ask(self, query: str) -> list[Any]:
        with closing(sqlite3.connect(self._address, uri=True)) as connection:
            return connection.execute(query).fetchall()

    def list_tables(self, _state: SqlState) -> dict[str, Any]:
        rows = self._ask("select name from sqlite_master where type = 'table' order by name")
        return {"tables": [name for (name,) in rows]}

    def get_schema(self, state: SqlState) -> dict[str, Any]:
        rows = self._ask("select name, sql from sqlite_master order by name")
        return {"schema": "\n".join(sql for name, sql in rows if name in state["tables"])}

    def generate_query(self, state: SqlState) -> dict[str, Any]:
        attempt = state.get("attempts", 0)
        query = llm.invoke(f"{state['question']}|{attempt}").text
        return {"query": query, "attempts": attempt + 1}

    def validate(self, state: SqlState) -> dict[str, Any]:
        if not state["query"].startswith("select"):
            return {"problem": "only select is allowed"}
        try:
            self._ask(f"explain {state['query']}")
        except sqlite3.Error as error:
            return {"problem": str(error)}
        return {"problem": ""}

    def run_query(self, state: SqlState) -> dict[str, Any]:
        return {"rows": self._ask(state["query"])}

    def respond(self, state: SqlState) -> dict[str, Any]:
        return {"answer": f"{state['question']} {state['rows']}"}

    def give_up(self, state: SqlState) -> dict[str, Any]:
        return {"answer": f"gave up: {state['problem']}"}

    @staticmethod
    def after_validation(state: SqlState) -> Literal["run_query", "generate_query", "give_up"]:
        if not state["problem"]:
            return "run_query"
        return "give_up" if state["attempts"] >= 3 else "generate_query"

    def graph(self) -> Any:
        graph: Any = StateGraph(SqlState)
        graph.add_sequence([self.list_tables, self.get_schema, self.generate_query, self.validate])
        graph.add_sequence([self.run_query, self.respond])
        graph.add_node("give_up", self.give_up)
        graph.set_entry_point("list_tables")
        graph.set_finish_point("respond")
        graph.add_conditional_edges("validate", self.after_validation)
        return graph


@pytest.mark.parametrize(
    ("question", "expected", "attempts"),
    [
        ("albums of Coltrane", "albums of Coltrane [('Blue Train',), ('Giant Steps',)]", 1),
        ("how many albums?", "how many albums? [(3,)]", 2),
        ("drop it", "gave up: only select is allowed", 3),
    ],
)
def test_a_query_is_run_only_after_it_was_validated(
    question: str, expected: str, attempts: int, database: Path, model: ChatSequrity
) -> None:
    [state] = same_as_langgraph(lambda: SqlAgent(database).graph(), model, {"question": question})
    assert state["answer"] == expected
    assert state["attempts"] == attempts
