"""Settings of a server that would lose what was acknowledged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from redis.exceptions import ResponseError

from tokenkeep._stepping import settle

_UNKNOWN: Final = "nobody"

_NO_LOG: Final = (
    "appendonly=no loses acknowledged changes when the server is killed, and brings back tokens that were revoked; "
    "set it to yes"
)
_NO_SYNC: Final = (
    "appendfsync=no loses acknowledged changes when the power fails, as many as the system has not written yet; "
    "set it to always, or to everysec for at most a second of them"
)
SECOND: Final = (
    "appendfsync=everysec loses the last second of acknowledged changes when the power fails; set it to always"
)
"""What is true of Redis as it comes; for whoever looks at the status, and not for every log."""

_VOLATILE: Final = (
    "a maxmemory-policy of volatile-... forgets one-time codes that were used when the memory is full; "
    "set it to noeviction"
)
_EVICTING: Final = (
    "a maxmemory-policy of allkeys-... throws tokens away once maxmemory is set and reached; set it to noeviction"
)
_NOT_SAID: Final = (
    "whether the server keeps what it acknowledges could not be asked: it allows neither CONFIG GET nor INFO; "
    "see to appendonly=yes and maxmemory-policy=noeviction"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a server was told about keeping its data; "nobody" where it does not say.

    Attributes:
        appendonly: whether there is a log.
        appendfsync: when it reaches the disk.
        policy: what is thrown away when the memory is full.
        maxmemory: when that is; "0" is never.
    """

    appendonly: str = _UNKNOWN
    appendfsync: str = _UNKNOWN
    policy: str = _UNKNOWN
    maxmemory: str = _UNKNOWN

    @property
    def evicts(self) -> bool:
        """Whether tokens are thrown away when the memory is full."""
        return self.policy.startswith("allkeys") and self.maxmemory != "0"

    @property
    def warnings(self) -> tuple[str, ...]:
        """A sentence for each setting that would lose acknowledged data."""
        unsafe = {
            _NO_LOG: self.appendonly == "no",
            _NO_SYNC: self.appendonly == "yes" and self.appendfsync == "no",
            SECOND: self.appendonly == "yes" and self.appendfsync == "everysec",
            _EVICTING: self.policy.startswith("allkeys"),
            _VOLATILE: self.policy.startswith("volatile"),
            _NOT_SAID: _UNKNOWN in {self.appendonly, self.policy},
        }
        return tuple(sentence for sentence, is_so in unsafe.items() if is_so)


async def settings_of(node: Any) -> Settings:
    """Ask a server how it is set up, by CONFIG where it may be asked, else by INFO."""
    said: dict[str, Any] = {}
    for name in ("appendonly", "appendfsync", "maxmemory-policy", "maxmemory"):
        said |= await _asked(node, "CONFIG GET", name)
    if not said:
        info = await _asked(node, "INFO", "persistence") | await _asked(node, "INFO", "memory")
        logged = {"0": "no", "1": "yes"}.get(str(info.get("aof_enabled")), _UNKNOWN)
        said = {"appendonly": logged, "maxmemory-policy": info.get("maxmemory_policy", _UNKNOWN)}
        said["maxmemory"] = info.get("maxmemory", _UNKNOWN)
    return Settings(
        appendonly=str(said.get("appendonly", _UNKNOWN)),
        appendfsync=str(said.get("appendfsync", _UNKNOWN)),
        policy=str(said.get("maxmemory-policy", _UNKNOWN)),
        maxmemory=str(said.get("maxmemory", _UNKNOWN)),
    )


async def _asked(node: Any, *question: str) -> dict[str, Any]:
    """Return an answer by names; nothing where the server does not allow the question."""
    try:
        answer = await settle(node.execute_command(*question))
    except ResponseError:  # unknown command, no permission
        return {}
    if not isinstance(answer, dict):
        answer = dict(zip(answer[::2], answer[1::2], strict=True))
    return {_text(name): _text(value) for name, value in answer.items()}


def _text(value: object) -> Any:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
