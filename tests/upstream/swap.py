"""A pytest plugin for a process of the originals: puts tokenkeep's modules in the place of theirs.

`TOKENKEEP_TEST_MONGO` names the server that stands for the one their tests expect on localhost.
"""

# mypy: ignore-errors
# It runs in an environment of its own, where these packages are.

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any

import fastapi_users.authentication.strategy
import pymongo
import pytest

import tokenkeep.fastapi_users

STRATEGY = ("AP", "AccessTokenDatabase", "AccessTokenProtocol", "DatabaseStrategy")
SWAPPED = {
    "AccessTokenDatabase",
    "BeanieAccessTokenDatabase",
    "BeanieBaseAccessToken",
    "DatabaseStrategy",
    "SQLAlchemyAccessTokenDatabase",
    "SQLAlchemyBaseAccessTokenTableUUID",
}
OURS_BY_INHERITANCE = {"AccessTokenDatabase"}
"""This one is a protocol: there is nothing in it to run, and ours is theirs."""

sys.modules["fastapi_users.authentication.strategy.db"] = tokenkeep.fastapi_users
for name in STRATEGY:
    setattr(fastapi_users.authentication.strategy, name, getattr(tokenkeep.fastapi_users, name))
for package, module in (("fastapi_users_db_sqlalchemy", "sqlalchemy"), ("fastapi_users_db_beanie", "beanie")):
    ours = import_module(f"tokenkeep.fastapi_users.{module}")
    sys.modules[f"{package}.access_token"] = import_module(package).access_token = ours

if address := os.environ.get("TOKENKEEP_TEST_MONGO"):

    class Elsewhere(pymongo.AsyncMongoClient):
        def __init__(self, _host: object, **options: Any) -> None:
            super().__init__(address, **options)

    pymongo.AsyncMongoClient = Elsewhere


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuse to test the originals against themselves."""
    used = {
        name: value.__module__
        for module in {item.module for item in session.items}
        for name, value in vars(module).items()
        if name in SWAPPED - OURS_BY_INHERITANCE
    }
    if not used or not all(origin.startswith("tokenkeep.") for origin in used.values()):
        pytest.exit(f"not tokenkeep's: {used}", returncode=3)
