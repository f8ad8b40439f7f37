"""What a Redis loses when its process or its machine ends, as its settings say."""

from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import RedisCluster
from redis.exceptions import ResponseError

from langchain_sequrity.errors import UsageError

_LOSSES: Final = {
    "always": "a killed Redis and a lost machine lose nothing that was acknowledged",
    "everysec": (
        "a killed Redis loses nothing that was acknowledged, or up to two seconds of it while its "
        "disk is slow; a lost machine up to two seconds"
    ),
    "no": (
        "a killed Redis loses nothing that was acknowledged, a lost machine what its system had "
        "not written, which may be half a minute"
    ),
}
_ADVICE = (
    "With `appendonly yes`, `appendfsync everysec` loses nothing when Redis is killed while its "
    "disk is fast, up to two seconds otherwise, and `appendfsync always` loses nothing."
)
_NAMES = ("appendonly", "appendfsync", "maxmemory-policy")


@dataclass(frozen=True, slots=True)
class Durability:
    """What the settings of a Redis mean for what it has acknowledged.

    Attributes:
        loss: What may be lost.
        problem: Why sessions are not safe in it, and what to do; empty if they are.
    """

    loss: str
    problem: str = ""


async def durability(client: Any) -> Durability:
    """Look at the settings of a Redis, or of all nodes of a cluster.

    Args:
        client: A `Redis` or `RedisCluster` of `redis.asyncio`.

    Returns:
        The worst of what its nodes lose.

    Raises:
        UsageError: If it is a replica, or a node of a cluster that is used as a single server.
    """
    targets: list[dict[str, Any]] = [{}]
    if isinstance(client, RedisCluster):
        await client.initialize()
        targets = [{"target_nodes": node} for node in client.get_nodes()]
    else:
        _check_role(await client.execute_command("INFO", "replication"))
        _check_is_single(await client.execute_command("INFO", "cluster"))
    try:
        answers = [await client.execute_command("CONFIG GET", *_NAMES, **t) for t in targets]
    except ResponseError as error:  # which a missing permission is too
        return Durability(
            "unknown",
            f"Redis does not tell its settings (`CONFIG GET`: {type(error).__name__}), as many "
            f"managed ones. Look there whether it writes an append-only file. {_ADVICE} "
            "`maxmemory-policy` has to be `noeviction`.",
        )
    looks = [_meaning({_text(name): _text(a[name]) for name in a}) for a in answers]
    problems = [look for look in looks if look.problem]
    return problems[0] if problems else max(looks, key=_severity)


def _check_role(replication: Any) -> None:
    if replication.get("role") != "master":
        msg = "This Redis is a replica, which stores nothing. Name the primary."
        raise UsageError(msg)


def _check_is_single(cluster: Any) -> None:
    if int(cluster.get("cluster_enabled", 0)):
        msg = "This Redis is a node of a cluster. Write `redis+cluster://` or `rediss+cluster://`."
        raise UsageError(msg)


def _meaning(settings: dict[str, str]) -> Durability:
    if settings.get("appendonly") != "yes":
        return Durability(
            "all sessions since its last snapshot",
            "Redis has no append-only file (`appendonly no`): when it is killed or restarted, all "
            f"sessions since its last snapshot are lost, often all. {_ADVICE}",
        )
    policy = settings.get("maxmemory-policy", "noeviction")
    loss = _LOSSES[settings.get("appendfsync", "everysec")]
    if policy != "noeviction":
        return Durability(
            loss,
            f"Redis drops sessions when its memory is full (`maxmemory-policy {policy}`). Set it "
            "to `noeviction`, with which it refuses new ones instead.",
        )
    return Durability(loss)


def _severity(look: Durability) -> int:
    return [*_LOSSES.values()].index(look.loss)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
