# ruff: noqa: A002, A006 - arguments of tools have the names that such tools have
"""The worlds of the tasks: small data behind tools, and which tools act.

Each world is made anew for each run, so that a task can look at what was changed. A tool that acts
writes a line into `acts`; tools that only look do not.
"""

import json
from dataclasses import dataclass, field
from typing import Any

from langchain_core.tools import BaseTool, StructuredTool, tool
from typing_extensions import TypedDict


@dataclass
class World:
    """Tools, and what they were used for.

    Attributes:
        tools: The tools of the world.
        acts: What was done to the world, one text for each act, in order.
    """

    tools: list[BaseTool] = field(default_factory=list)
    acts: list[str] = field(default_factory=list)


class Event(TypedDict):
    """An entry of the calendar."""

    id: int
    title: str
    day: str
    start: str
    minutes: int
    people: list[str]


class Person(TypedDict):
    """A person of the team."""

    name: str
    email: str
    role: str


def calendar() -> World:
    """The calendar of a team: seven tools, most with typed results."""
    world = World()
    events: dict[int, Event] = {
        number: Event(id=number, title=title, day=day, start=start, minutes=minutes, people=people)
        for number, title, day, start, minutes, people in [
            (1, "Standup", "2026-03-04", "09:00", 15, ["Ida", "Paul", "Noor"]),
            (2, "Budget", "2026-03-04", "11:00", 60, ["Ida", "Carla"]),
            (3, "Interview", "2026-03-04", "15:30", 45, ["Paul"]),
            (4, "Standup", "2026-03-05", "09:00", 15, ["Ida", "Paul", "Noor"]),
            (5, "Retro", "2026-03-06", "14:00", 90, ["Ida", "Paul", "Noor", "Carla"]),
        ]
    }

    @tool
    def list_events(day: str) -> list[Event]:
        """List the events of a day, given as YYYY-MM-DD."""
        return [one for one in events.values() if one["day"] == day]

    @tool
    def find_events(title: str) -> list[Event]:
        """Find all events with a title."""
        return [one for one in events.values() if one["title"].lower() == title.lower()]

    @tool
    def create_event(title: str, day: str, start: str, minutes: int) -> int:
        """Create an event; `start` is HH:MM. Returns the id of the new event."""
        number = max(events) + 1
        events[number] = Event(
            id=number, title=title, day=day, start=start, minutes=minutes, people=[]
        )
        world.acts.append(f"create {title} {day} {start} {minutes}")
        return number

    @tool
    def cancel_event(id: int) -> bool:
        """Cancel an event by its id."""
        world.acts.append(f"cancel {id}")
        return events.pop(id, None) is not None

    @tool
    def find_person(name: str) -> Person | None:
        """Find a person of the team by name."""
        known = {"Ida": "lead", "Paul": "engineer", "Noor": "designer", "Carla": "finance"}
        if name not in known:
            return None
        return Person(name=name, email=f"{name.lower()}@team.example", role=known[name])

    @tool
    def list_free_rooms(day: str, start: str) -> list[str]:
        """List the rooms that are free on a day at a time."""
        del day
        return ["Oak", "Elm"] if start < "12:00" else ["Elm"]

    @tool
    def send_invitation(event_id: int, email: str) -> str:
        """Invite somebody to an event."""
        world.acts.append(f"invite {event_id} {email}")
        return "sent"

    world.tools = [
        list_events,
        find_events,
        create_event,
        cancel_event,
        find_person,
        list_free_rooms,
        send_invitation,
    ]
    return world


def files() -> World:
    """Folders and files: six tools; contents are texts, listings are JSON in a text."""
    world = World()
    held = {
        "notes/todo.txt": "1. Call the landlord\n2. Order paint\n3. Water the plants",
        "notes/ideas.txt": "A shelf for the hall.",
        "papers/lease.txt": (
            "Lease between Bea Kahn and Orchard Homes. The flat is let from 1 May 2024.\n"
            "The lease ends on 30 April 2027. The rent is 910 euros."
        ),
        "inbox/scan.pdf": "%PDF scan",
        "inbox/photo.jpg": "JPEG",
        "inbox/bill.pdf": "%PDF bill",
        "reports/march.txt": "x" * 700,
        "reports/april.txt": "x" * 1900,
        "reports/may.txt": "x" * 1200,
    }

    @tool
    def list_folder(folder: str) -> str:
        """List the files in a folder, as a JSON array of objects with `path` and `size`."""
        found = [one for one in held if one.startswith(folder.rstrip("/") + "/")]
        return json.dumps([{"path": one, "size": len(held[one])} for one in found])

    @tool
    def read_text(path: str) -> str:
        """Read a file. The result is its text."""
        if path not in held:
            msg = f"there is no file {path}"
            raise ValueError(msg)
        return held[path]

    @tool
    def write_text(path: str, text: str) -> str:
        """Write a text to a file."""
        held[path] = text
        world.acts.append(f"write {path} {text}")
        return "written"

    @tool
    def move_file(path: str, folder: str) -> str:
        """Move a file to another folder."""
        name = path.rpartition("/")[2]
        held[f"{folder.rstrip('/')}/{name}"] = held.pop(path)
        world.acts.append(f"move {path} {folder.rstrip('/')}")
        return "moved"

    @tool
    def delete_file(path: str) -> str:
        """Delete a file."""
        held.pop(path)
        world.acts.append(f"delete {path}")
        return "deleted"

    @tool
    def search_files(word: str) -> list[str]:
        """Return the paths of all files whose text contains a word."""
        return [one for one, text in held.items() if word.lower() in text.lower()]

    world.tools = [list_folder, read_text, write_text, move_file, delete_file, search_files]
    return world


def shop() -> World:
    """The back office of a shop: eight tools, described by JSON Schemas."""
    world = World()
    customers = {"mia@example.com": 7, "tom@example.com": 8}
    orders: dict[int, dict[str, Any]] = {
        1040: {"id": 1040, "customer": 7, "date": "2026-01-10", "status": "delivered", "total": 20},
        1041: {"id": 1041, "customer": 8, "date": "2026-02-02", "status": "paid", "total": 75.5},
        1042: {"id": 1042, "customer": 7, "date": "2026-02-11", "status": "shipped", "total": 42.0},
        1039: {"id": 1039, "customer": 7, "date": "2026-01-03", "status": "delivered", "total": 9},
    }
    stock = {"mug": 12, "lamp": 3, "rug": 0, "vase": 40}

    def acting(text: str, result: Any) -> Any:
        world.acts.append(text)
        return result

    number, text = {"type": "integer"}, {"type": "string"}
    order = {
        "type": "object",
        "properties": {
            "id": number,
            "customer": number,
            "date": text,
            "status": text,
            "total": {"type": "number"},
        },
        "required": ["id", "customer", "date", "status", "total"],
    }

    def made(name: str, about: str, run: Any, result: Any, **arguments: Any) -> BaseTool:
        schema = {"type": "object", "properties": arguments, "required": [*arguments]}
        return StructuredTool.from_function(
            lambda **given: json.dumps(run(**given)),
            name=name,
            description=about,
            args_schema=schema,
            extras={"output_schema": result} if result else None,
        )

    world.tools = [
        made(
            "find_customer", "Find a customer by mail address; returns the customer's number.",
            lambda email: customers[email], {"type": ["integer", "null"]}, email=text,
        ),
        made(
            "list_orders", "List the orders of a customer.",
            lambda customer: [one for one in orders.values() if one["customer"] == customer],
            {"type": "array", "items": order}, customer=number,
        ),
        made("get_order", "Get an order by its number.", lambda id: orders[id], order, id=number),
        made(
            "refund_order", "Pay the total of an order back.",
            lambda id, reason: acting(f"refund {id} {reason}", {"refunded": orders[id]["total"]}),
            None, id=number, reason=text,
        ),
        made("list_products", "List the names of all products.", lambda: [*stock],
             {"type": "array", "items": text}),
        made("get_stock", "How many pieces of a product are in stock.",
             lambda product: {"product": product, "pieces": stock[product]}, None, product=text),
        made("order_supplies", "Order more pieces of a product.",
             lambda product, pieces: acting(f"supply {product} {pieces}", "ordered"), None,
             product=text, pieces=number),
        made("open_ticket", "Open a ticket for a customer; returns its number.",
             lambda customer, subject: acting(f"ticket {customer} {subject}", 501), number,
             customer=number, subject=text),
    ]  # fmt: skip
    return world


class Message(TypedDict):
    """A message in a channel."""

    author: str
    time: str
    text: str


def chat() -> World:
    """Channels of a team chat: five tools."""
    world = World()
    channels: dict[str, list[Message]] = {
        "general": [Message(author="Lea", time="08:10", text="Good morning everybody")],
        "help": [
            Message(
                author="Omar", time="10:02", text="Does anybody know the door code of floor 3?"
            ),
            Message(author="Lea", time="10:05", text="It is on the fridge."),
        ],
        "ops": [
            Message(author="Ravi", time="07:40", text="Backup finished"),
            Message(author="Sue", time="09:12", text="Outage of the mail server since nine"),
        ],
        "design": [],
    }
    members = {"general": ["Lea", "Omar", "Ravi", "Sue", "Kim"], "design": ["Kim", "Lea", "Sue"]}

    @tool
    def list_channels() -> list[str]:
        """List the names of all channels."""
        return [*channels]

    @tool
    def read_channel(channel: str) -> list[Message]:
        """Read the messages of a channel, the oldest first."""
        return channels[channel]

    @tool
    def list_members(channel: str) -> list[str]:
        """List the members of a channel."""
        return members.get(channel, [])

    @tool
    def post_message(channel: str, text: str) -> bool:
        """Post a message in a channel."""
        world.acts.append(f"post {channel} {text}")
        return True

    @tool
    def invite_member(channel: str, name: str) -> bool:
        """Invite somebody to a channel."""
        world.acts.append(f"join {channel} {name}")
        return True

    world.tools = [list_channels, read_channel, list_members, post_message, invite_member]
    return world
