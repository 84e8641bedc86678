"""Numbers for Prometheus, in a registry of their own; needs the extra `[service]`.

    metrics = Metrics()
    vault = TokenVault.open(url, providers=[metrics.measured(UpstoxProvider())])
    prometheus_client.start_http_server(9100, registry=metrics.registry)

No label names a user, and each takes few values: a provider that is registered, a route, an outcome.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from inspect import isawaitable
from typing import Final

try:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest
except ModuleNotFoundError as error:
    msg = 'tokenkeep.metrics needs prometheus-client: pip install "tokenkeep[service]"'
    raise ModuleNotFoundError(msg, name=error.name) from None

from tokenkeep.errors import ProviderRejected, ProviderUnavailable
from tokenkeep.model import IssuedToken, NewToken
from tokenkeep.ports import OneTimeCodes, Provider, Renewing, Revoking

GRANTED: Final = "granted"
REJECTED: Final = "rejected"
UNAVAILABLE: Final = "unavailable"
IN_DOUBT: Final = "in_doubt"
OUTCOMES: Final = (GRANTED, REJECTED, UNAVAILABLE, IN_DOUBT)

GOOD: Final = "good"
BAD: Final = "bad"

_LOGIN_SECONDS: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80)
"""A login at Upstox takes six seconds, and may wait for a one-time code before."""

_ANSWER_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5, 20, 60)

type Granted = Sequence[NewToken]


class Metrics:
    """Counts what it is told. Safe to use from threads.

    Attributes:
        registry: where the numbers are; what collects them reads it.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._logins = self._counter("logins", "Calls of a provider for a token, by outcome.", "provider", "outcome")
        self._login = self._histogram("login_duration", "How long a provider took.", _LOGIN_SECONDS, "provider")
        self._handed = self._counter("tokens_handed_out", "Tokens that callers of the service got.", "provider")
        self._waits = self._histogram(
            "token_wait", "How long callers waited who found no token at hand.", _LOGIN_SECONDS, "provider"
        )
        self._verifications = self._counter("verifications", "Issued tokens that were asked about.", "outcome")
        for outcome in (GOOD, BAD):
            self._verifications.labels(outcome)
        self._requests = self._counter("http_requests", "Requests, by route.", "route", "status")
        self._request = self._histogram("http_request_duration", "How long an answer took.", _ANSWER_SECONDS, "route")
        self._up = self._gauge("store_up", "1 while the store answers, else 0.")
        self._accounts = self._gauge("accounts", "Accounts that are watched, by state.", "provider", "state")
        self._left = self._gauge(
            "token_seconds_left", "Seconds until the first valid token of the watched accounts ends.", "provider"
        )

    def _counter(self, name: str, words: str, *labels: str) -> Counter:
        return Counter(f"tokenkeep_{name}", words, labels, registry=self.registry)

    def _gauge(self, name: str, words: str, *labels: str) -> Gauge:
        return Gauge(f"tokenkeep_{name}", words, labels, registry=self.registry)

    def _histogram(self, name: str, words: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(f"tokenkeep_{name}_seconds", words, labels, registry=self.registry, buckets=buckets)

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(_WithoutBirths(self.registry))

    # --- what is told ---

    def measured(self, provider: Provider) -> Provider:
        """Return the provider with its calls counted and timed; hand this one to the vault."""
        for outcome in OUTCOMES:  # from zero on, for what is born as one never rises
            self._logins.labels(provider.name, outcome)
        return _Measured(provider, self)

    def logged_in(self, provider: str, outcome: str, seconds: float) -> None:
        """A provider was asked for a token."""
        self._logins.labels(provider, outcome).inc()
        self._login.labels(provider).observe(seconds)

    def handed_out(self, provider: str) -> None:
        """A caller got a token."""
        self._handed.labels(provider).inc()

    def waited(self, provider: str, seconds: float) -> None:
        """A caller found no token at hand, and waited for a login: their own, or that of somebody else."""
        self._waits.labels(provider).observe(seconds)

    def verified(self, found: IssuedToken | None) -> None:
        """An issuer was asked about a token; `None`: it is not good."""
        self._verifications.labels(BAD if found is None else GOOD).inc()

    def answered(self, route: str, status: int, seconds: float) -> None:
        """A request was answered; a route is a template, never a path."""
        self._requests.labels(route, str(status)).inc()
        self._request.labels(route).observe(seconds)

    def store_answers(self, *, up: bool) -> None:
        """Whether the store does."""
        self._up.set(int(up))

    def accounts(self, left: Mapping[str, Sequence[timedelta | None]]) -> None:
        """What the watched accounts of each provider have: how long a valid token lasts, or `None`.

        A token without an end is one of ten years.
        """
        self._accounts.clear()
        self._left.clear()
        for provider, spans in left.items():
            valid = [span.total_seconds() for span in spans if span is not None]
            self._accounts.labels(provider, "valid").set(len(valid))
            self._accounts.labels(provider, "missing").set(len(spans) - len(valid))
            if valid:
                self._left.labels(provider).set(min(valid))


class _WithoutBirths:
    """A registry without the times at which its series began: nothing reads them in this format."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for family in self._registry.collect():
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family


class _Measured:
    """A provider with the powers of the one inside, whose calls for a token are counted."""

    def __init__(self, inner: Provider, metrics: Metrics) -> None:
        self.name = inner.name
        self.expiry = inner.expiry
        self._inner = inner
        self._metrics = metrics
        # Powers are asked for by what an object has, so it has those that the inner one has.
        if isinstance(inner, Renewing):
            self.renew = self._timed(inner.renew)
        if isinstance(inner, Revoking):
            self.revoke = inner.revoke
        if isinstance(inner, OneTimeCodes):
            self.code_window = inner.code_window

    def __repr__(self) -> str:
        return f"measured {self._inner!r}"

    def acquire(self, user_id: str) -> Granted | Awaitable[Granted]:
        return self._timed(self._inner.acquire)(user_id)

    def _timed[**P](self, call: Callable[P, Granted | Awaitable[Granted]]) -> Callable[P, Granted | Awaitable[Granted]]:
        def timed(*args: P.args, **options: P.kwargs) -> Granted | Awaitable[Granted]:
            began = time.monotonic()
            try:
                granted = call(*args, **options)
            except BaseException as error:
                self._tell(began, error)
                raise
            if isawaitable(granted):
                return self._awaited(granted, began)
            self._tell(began, None)
            return granted

        return timed

    async def _awaited(self, granted: Awaitable[Granted], began: float) -> Granted:
        try:
            tokens = await granted
        except BaseException as error:
            self._tell(began, error)
            raise
        self._tell(began, None)
        return tokens

    def _tell(self, began: float, error: BaseException | None) -> None:
        self._metrics.logged_in(self.name, _outcome(error), time.monotonic() - began)


def _outcome(error: BaseException | None) -> str:
    """Name how a call ended. What is not known to be a refusal leaves it in doubt, as for the vault."""
    if error is None:
        return GRANTED
    if isinstance(error, ProviderRejected):
        return REJECTED
    return UNAVAILABLE if isinstance(error, ProviderUnavailable) else IN_DOUBT
