"""verify within max_staleness: from memory, set beside tokens that need no database at all."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Final

import jwt
from joserfc import jwt as jose
from joserfc.jwk import OctKey

from benchmarks import workload
from benchmarks.harness import MICROSECOND, Line, Setting, interleaved, least, most, per_call
from tokenkeep import KeyRing, TokenIssuer

TOKENS: Final = 1000
CALLS: Final = 20_000
JWT_CALLS: Final = 2000
FEW, MANY = 22_000, 42_000
"""What else keeps rows, at most 10,000, or 20,000 and then anew, holds as many at both."""
OURS, PYJWT, JOSERFC = "ours", "PyJWT HS256 decode", "joserfc HS256 decode"
SECRET: Final = "0123456789abcdef0123456789abcdef"


def measure(setting: Setting) -> Iterator[Line]:
    path = setting.folder / "tokens.db"
    tokens = workload.issued(path, MANY, MANY, setting.keys)
    claims = {"sub": "user-0000001", "aud": "orders", "exp": 4_000_000_000, "scope": "orders:read"}
    signed = jwt.encode(claims, SECRET, algorithm="HS256")
    key = OctKey.import_key(SECRET)
    exists = jose.JWTClaimsRegistry(exp={"essential": True})
    with opened(path, setting.keys) as issuer:
        for token in tokens[:TOKENS]:
            issuer.verify(token)
        rounds = interleaved(
            {
                OURS: lambda: per_call(issuer.verify, workload.picked(tokens[:TOKENS], CALLS)),
                PYJWT: lambda: per_call(
                    lambda token: jwt.decode(token, SECRET, algorithms=["HS256"], audience="orders"),
                    [signed] * JWT_CALLS,
                ),
                JOSERFC: lambda: per_call(
                    lambda token: exists.validate(jose.decode(token, key, algorithms=["HS256"]).claims),
                    [signed] * JWT_CALLS,
                ),
            },
            runs=setting.runs,
        )
    work = "verify within max_staleness"
    yield rounds.gain(work, OURS, PYJWT, least(15))
    yield rounds.gain(work, OURS, JOSERFC, least(10))
    yield Line(work=work, figure=rounds.seconds(OURS) / MICROSECOND, unit="us", goal=most(2.5, "us"))
    yield Line(
        work="memory of the verify cache, an entry",
        figure=bytes_an_entry(path, tokens, setting.keys),
        unit="bytes",
        goal=most(250, "bytes"),
        note="with the IssuedToken that it returns",
    )


def opened(path: Path, keys: KeyRing) -> TokenIssuer:
    bound = timedelta(hours=1)
    return TokenIssuer.open(workload.url(path), lifetime=workload.LIFETIME, keys=keys, max_staleness=bound)


def bytes_an_entry(path: Path, tokens: list[str], keys: KeyRing) -> float:
    """What the process holds more for each token more; the counts of uses are written away first."""

    def held(count: int) -> int:
        with opened(path, keys) as issuer:
            gc.collect()
            before = tracemalloc.get_traced_memory()[0]
            for token in tokens[:count]:
                assert issuer.verify(token)
            issuer.statistics("user-0000001")
            gc.collect()
            return tracemalloc.get_traced_memory()[0] - before

    tracemalloc.start()
    try:
        return (held(MANY) - held(FEW)) / (MANY - FEW)
    finally:
        tracemalloc.stop()
