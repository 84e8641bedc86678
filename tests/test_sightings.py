"""What one caller reads serves all who asked before he read it, and nobody who asked later."""

from __future__ import annotations

import asyncio

import pytest

from tokenkeep.sightings import Seeker, Sightings
from tokenkeep.tasks import TaskSignal


def anything(_found: int) -> bool:
    return True


class Book:
    """Counts how often it is read, and answers with that."""

    def __init__(self) -> None:
        self.read = 0

    async def __call__(self) -> int:
        self.read += 1
        return self.read


@pytest.fixture
def book() -> Book:
    return Book()


@pytest.fixture
def sightings() -> Sightings[int]:
    return Sightings[int](TaskSignal)


def told(seeker: Seeker[int]) -> asyncio.Future[int | None]:
    return asyncio.ensure_future(seeker.told())


async def test_those_who_stand_by_are_told_what_the_leader_reads(book: Book, sightings: Sightings[int]) -> None:
    first, second, third = (sightings.seek("a", book) for _ in range(3))
    assert [seeker.leads for seeker in (first, second, third)] == [True, False, False]
    waiting = [told(second), told(third)]
    assert await first.look(anything) == 1
    assert await asyncio.gather(*waiting) == [1, 1]
    assert book.read == 1


async def test_whoever_asks_while_the_leader_reads_is_not_served_by_that(sightings: Sightings[int]) -> None:
    late: list[Seeker[int]] = []

    async def read() -> int:
        late.append(sightings.seek("a", read))
        return 1

    first = sightings.seek("a", read)
    await first.look(anything)
    waiting = told(late[0])
    await asyncio.sleep(0)
    assert not waiting.done()
    first.leave()
    assert await waiting is None
    assert late[0].leads


async def test_nothing_that_was_found_wakes_nobody(sightings: Sightings[int]) -> None:
    async def nothing() -> int | None:
        return None

    first, second = sightings.seek("a", nothing), sightings.seek("a", nothing)
    waiting = told(second)
    assert await first.look(anything) is None
    await asyncio.sleep(0)
    assert not waiting.done()
    first.leave()
    assert await waiting is None


async def test_what_does_not_serve_the_leader_wakes_nobody(book: Book, sightings: Sightings[int]) -> None:
    first, second = sightings.seek("a", book), sightings.seek("a", book)
    waiting = told(second)
    for _ in range(3):
        assert await first.look(lambda page: page > 3) is None
    await asyncio.sleep(0)
    assert not waiting.done()
    assert await first.look(lambda page: page > 3) == 4
    assert await waiting == 4


async def test_whoever_leaves_when_he_was_just_made_the_leader_lets_the_next_one(
    book: Book, sightings: Sightings[int]
) -> None:
    first, second, third = (sightings.seek("a", book) for _ in range(3))
    first.leave()
    second.leave()
    assert await third.told() is None
    assert third.leads


async def test_keys_know_nothing_of_each_other_and_are_forgotten_with_the_last_who_asks(
    book: Book, sightings: Sightings[int]
) -> None:
    one, other = sightings.seek("a", book), sightings.seek("b", book)
    assert one.leads
    assert other.leads
    one.leave()
    other.leave()
    assert sightings._groups == {}
