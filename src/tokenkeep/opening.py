"""From a URL to a service that is wired and ready to start."""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal, get_args

from tokenkeep import _checking
from tokenkeep.errors import ConfigurationError
from tokenkeep.issuer import IssuerCore
from tokenkeep.keyring import FILE_VARIABLE, KEYS_VARIABLE, KeyRing, named_in_environment
from tokenkeep.lifecycle import Opened
from tokenkeep.limiting import AtLimit, Limit
from tokenkeep.ports import AuditStore, Backend, ChainedAudit, Clock, OpenedStore, Provider, Source
from tokenkeep.registry import Registry
from tokenkeep.threads import Threads
from tokenkeep.vault import VaultCore

if TYPE_CHECKING:
    from tokenkeep.tasks import Tasks

type Opener = Callable[..., OpenedStore]
type Audited = Literal["changes", "reads"]
type CacheOpener = Callable[..., Backend]

STORES: Final = {
    "sqlite": ("tokenkeep.stores.sql.opening:open_sqlite", ""),
    "postgresql": ("tokenkeep.stores.sql.opening:open_postgresql", "postgres"),
    "mariadb": ("tokenkeep.stores.sql.opening:open_mariadb", "mysql"),
    "mysql": ("tokenkeep.stores.sql.opening:open_mariadb", "mysql"),
    "mongodb": ("tokenkeep.stores.mongo.opening:open_mongo", "mongo"),
    **dict.fromkeys(
        ("redis", "rediss", "valkey", "valkeys"), ("tokenkeep.stores.redis.store.opening:open_redis", "redis")
    ),
}
"""URL scheme -> where its opener is, and the extra that brings the driver."""

LENT: Final = {"sqlalchemy": "tokenkeep.stores.sql.opening:open_lent"}
"""Package of an engine or client that the caller lends -> where its opener is."""

_REDIS: Final = ("tokenkeep.stores.redis.opening:put_in_front", "redis")
CACHES: Final = {"redis": _REDIS, "rediss": _REDIS, "valkey": _REDIS, "valkeys": _REDIS}
"""URL scheme -> what puts a cache in front of a backend, and the extra that brings the driver."""

_logger = logging.getLogger("tokenkeep")


class SystemClock:
    """The clock of this machine."""

    def now(self) -> datetime:
        """Return the present as an aware UTC datetime."""
        return datetime.now(UTC)


def open_vault(  # the public signature and the face
    url: Source,
    *,
    asynchronous: bool,
    providers: Iterable[Provider],
    keys: KeyRing | None,
    namespace: str,
    cache: str | None,
    audit: Audited,
    clock: Clock | None,
) -> Opened[VaultCore]:
    """Wire a vault; nothing is read or written before it is started."""
    _checking.label(namespace, "namespace")
    if audit not in get_args(Audited.__value__):
        msg = f"audit must be 'changes' or 'reads', not {audit!r}"
        raise ValueError(msg)
    registry = Registry(namespace, _by_name(providers))
    store = _open_store(url, asynchronous=asynchronous, clock=clock)
    ring, clock = _ring(keys, store), clock or SystemClock()
    _prove_trail(store.backend.audit, ring)
    backend = _behind(cache, store.backend, ring, asynchronous=asynchronous, clock=clock)
    runtime = _runtime(asynchronous=asynchronous)
    reads = audit == "reads"
    core = VaultCore(backend, registry, ring, clock=clock, wait=runtime, work=runtime, audit_reads=reads)
    return Opened(core, runtime, backend)


def open_issuer(  # noqa: PLR0913  # the public signature and the face
    url: Source,
    *,
    asynchronous: bool,
    lifetime: timedelta,
    idle: timedelta | None,
    prefix: str,
    max_staleness: timedelta,
    namespace: str,
    limit: int | None,
    at_limit: AtLimit,
    keys: KeyRing | None,
    clock: Clock | None,
) -> Opened[IssuerCore]:
    """Wire an issuer; nothing is read or written before it is started."""
    _checking.label(namespace, "namespace")
    within = None if limit is None else Limit(limit, at_limit)
    store = _open_store(url, asynchronous=asynchronous, clock=clock)
    ring = _issuer_ring(keys, store)
    _prove_trail(store.backend.audit, ring)
    runtime = _runtime(asynchronous=asynchronous)
    core = IssuerCore(
        store.backend,
        lifetime=lifetime,
        idle=idle,
        prefix=prefix,
        max_staleness=max_staleness,
        namespace=namespace,
        limit=within,
        ring=ring,
        clock=clock or SystemClock(),
        wait=runtime,
        work=runtime,
    )
    return Opened(core, runtime, store.backend)


def open_backend(url: str) -> Backend:
    """Open a store for the sync face, without a service on it; nothing is read or written yet."""
    return _open_store(url, asynchronous=False, clock=None).backend


def _open_store(url: Source, *, asynchronous: bool, clock: Clock | None) -> OpenedStore:
    if not isinstance(url, str):
        return _use_lent(url, asynchronous=asynchronous, clock=clock)
    scheme, separator, _ = url.partition("://")
    dialect = scheme.partition("+")[0]
    if not separator or dialect not in STORES:
        known = ", ".join(f"{name}://" for name in STORES)
        what = f"unknown URL scheme {dialect!r}" if separator else "the database URL has no scheme"
        msg = f"{what}; this version knows {known} (a file: sqlite:///tokens.db, memory: sqlite://)"
        raise ConfigurationError(msg)
    where, extra = STORES[dialect]
    with _driver(dialect, extra):
        return _opener(where)(url, asynchronous=asynchronous, actor=_actor(), clock=clock)


@contextmanager
def _driver(dialect: str, extra: str) -> Iterator[None]:
    """Name the extra that brings a driver which is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "tokenkeep":
            raise  # ours is broken, no extra brings it
        msg = f'the driver for {dialect}:// is missing ({error.name}): pip install "tokenkeep[{extra}]"'
        raise ConfigurationError(msg) from error


def _behind(cache: str | None, durable: Backend, ring: KeyRing, *, asynchronous: bool, clock: Clock) -> Backend:
    """Return the backend behind the cache of this URL."""
    if cache is None:
        return durable
    if not isinstance(cache, str):
        msg = f"cache must be a URL such as redis://host:6379/0, not {type(cache).__name__}"
        raise TypeError(msg)
    scheme, separator, _ = cache.partition("://")
    dialect = scheme.partition("+")[0]
    if not separator or dialect not in CACHES:
        msg = "unknown URL scheme of the cache; this version knows redis://, rediss://, valkey:// and valkeys://"
        raise ConfigurationError(msg)
    where, extra = CACHES[dialect]
    module, _, name = where.partition(":")
    with _driver(dialect, extra):
        put_in_front: CacheOpener = getattr(importlib.import_module(module), name)
    return put_in_front(cache, durable, asynchronous=asynchronous, sealer=ring, clock=clock)


def _use_lent(lent: object, *, asynchronous: bool, clock: Clock | None) -> OpenedStore:
    where = LENT.get(type(lent).__module__.partition(".")[0])
    if where is None:
        msg = f"url must be a str such as sqlite:///tokens.db, or an engine to use, not {type(lent).__name__}"
        raise TypeError(msg)
    return _opener(where)(lent, asynchronous=asynchronous, actor=_actor(), clock=clock)


def _opener(where: str) -> Opener:
    module, _, name = where.partition(":")
    opener: Opener = getattr(importlib.import_module(module), name)
    return opener


def _runtime(*, asynchronous: bool) -> Threads | Tasks:
    if not asynchronous:
        return Threads()
    from tokenkeep.tasks import Tasks  # noqa: PLC0415  # asyncio is loaded for those who use it

    return Tasks()


def _by_name(providers: Iterable[Provider]) -> dict[str, Provider]:
    named: dict[str, Provider] = {}
    for provider in providers:
        name = _checking.label(provider.name, "the name of a provider")
        if name in named:
            msg = f"two providers are called {name!r}; give one of them another name="
            raise ConfigurationError(msg)
        named[name] = provider
    return named


def _prove_trail(audit: AuditStore, ring: KeyRing | None) -> None:
    """Hand the keys to a trail that has chains."""
    if isinstance(audit, ChainedAudit):
        audit.use_keys(ring)


def _ring(keys: KeyRing | None, store: OpenedStore) -> KeyRing:
    """The ring that was handed in, that of the environment, or for a SQLite file one kept beside it."""
    if keys is not None:
        return keys
    if named_in_environment():
        return KeyRing.from_env()
    if store.in_memory:
        return KeyRing.generate()
    if store.path is None:
        msg = f"no keys to seal tokens with: pass keys=KeyRing..., or set {KEYS_VARIABLE} or {FILE_VARIABLE}"
        raise ConfigurationError(msg)
    path = store.path.with_name(f"{store.path.name}.key")
    if not path.exists():
        _logger.warning("made %s to seal the tokens with; keep a copy apart, without it they are lost", path.name)
    return KeyRing.kept_in(path)


def _issuer_ring(keys: KeyRing | None, store: OpenedStore) -> KeyRing | None:
    """The same for an issuer; on a server it does without where none is given, and its digests are plain SHA-256."""
    if keys is None and not named_in_environment() and store.path is None and not store.in_memory:
        return None
    return _ring(keys, store)


def _actor() -> str:
    """Who the audit trail says did it: `user@host/pid`."""
    import getpass  # noqa: PLC0415  # no program needs it before it opens something
    import socket  # noqa: PLC0415  # likewise

    user = str(os.getuid()) if hasattr(os, "getuid") else "unknown"
    with suppress(KeyError, OSError, ImportError):
        user = getpass.getuser()
    return f"{user}@{socket.gethostname()}/{os.getpid()}"[: _checking.MAX_NAME]
