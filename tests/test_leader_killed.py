"""Whoever logs in for all comes to grief at some point of the login, and is succeeded.

All points are tried at once, each with an account and a leader of its own, so that the leases (10 s) and the time steps
of the one-time codes (30 s) run side by side.
"""

from __future__ import annotations

import os
import signal
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from crowd_control import Worker, Workers, rows
from tokenkeep import KeyRing, TokenVault
from tokenkeep.errors import ProviderRejected
from tokenkeep.testing.upstox import LOGIN_STEPS, LocalAccount, LocalUpstox

pytest.importorskip("upstox_totp", reason="the extra [upstox] is not installed")

CALLERS = 3
"""In each of the three processes that ask for an account."""

LONGEST = 90.0
"""Seconds until the last answer: a lease, two time steps (a login may claim the next one too), and a loaded machine."""

UNWANTED = "a login was not wanted"

_CODE = "INSERT INTO tokenkeep_step"
_AUDIT = "INSERT INTO tokenkeep_audit"


@dataclass(frozen=True)
class Point:
    """Where a leader comes to grief, and what that costs.

    Attributes:
        fate: where it does so by itself, as in `crowd_workers.Fate`; empty: the server kills it.
        begun: the logins that reach the server, all in all.
        granted: those of them that were granted a token.
        trail: what the audit trail tells, oldest first.
    """

    fate: str
    begun: int
    granted: int
    trail: tuple[str, ...] = ("acquire_in_doubt", "created")
    how: signal.Signals = signal.SIGKILL


POINTS = {
    **{f"when {step} arrives": Point("", 2, 2 if step == "token" else 1) for step in LOGIN_STEPS},
    "before the code is claimed": Point(_CODE, 1, 1, ("created",)),
    "before the intent is noted": Point(f"{_CODE}; BEGIN IMMEDIATE", 1, 1, ("created",)),
    "before the login": Point("asked", 1, 1),
    "with the token in hand": Point("granted", 2, 2),
    "before the lease is given back": Point("UPDATE tokenkeep_lease SET owner=NULL", 2, 2),
    "before the token is inserted": Point("INSERT INTO tokenkeep_token", 2, 2),
    "before the trail is written": Point(_AUDIT, 2, 2),
    "before the commit": Point(f"{_AUDIT}; COMMIT", 2, 2),
    "after the commit": Point("returned", 1, 1, ("created",)),
    "paused before the intent is noted": Point(f"{_CODE}; BEGIN IMMEDIATE", 1, 1, ("created",), signal.SIGSTOP),
    "paused with the token in hand": Point("granted", 2, 2, how=signal.SIGSTOP),
}

PAUSED = [name for name, point in POINTS.items() if point.how is signal.SIGSTOP]


@dataclass(eq=False)
class Course:
    """One account, who asks for it, and what they got."""

    account: LocalAccount
    point: Point
    deadly_step: str | None
    leader: Worker
    followers: list[Worker]
    killed: int = 0
    answers: list[dict[str, Any]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    followed: bool = False

    @property
    def user(self) -> str:
        return self.account.user_id

    def follow(self) -> None:
        """Let the followers ask; once."""
        with self.lock:
            if not self.followed:
                for follower in self.followers:
                    follower.tell(self.user)
                for follower in self.followers:
                    follower.hear(asking=self.user)
                self.followed = True

    def run(self) -> None:
        self.leader.tell(self.user)
        assert self.leader.grief() == self.point.how, self.leader.errors()
        self.follow()
        self.answers = [follower.hear(answered=self.user, patience=LONGEST) for follower in self.followers]
        if self.point.how is signal.SIGSTOP:
            self.leader.signal(signal.SIGCONT)
            self.answers.append(self.leader.hear(answered=self.user))
            self.leader.leave()


class Scene:
    """One server, one database, and for each point an account, a leader, and two followers that all accounts share."""

    def __init__(self, folder: Path, server: LocalUpstox, workers: Workers) -> None:
        self.database = folder / "tokens.db"
        self.keys = KeyRing.generate()
        self.keys.save(folder / "keys")
        self.server = server
        self._workers = workers
        accounts = {name: server.add_account() for name in POINTS}
        self._common = {
            "url": f"sqlite:///{self.database}",
            "keys": str(folder / "keys"),
            "callers": CALLERS,
            "base_domain": server.base_domain,
            "accounts": {account.user_id: account._credentials() for account in accounts.values()},
        }
        self.followers = [self._start(face) for face in ("threads", "tasks")]
        self.courses = {name: self._course(name, account) for name, account in accounts.items()}
        self._of_user = {course.user: course for course in self.courses.values()}
        server.on_step = self._arrived

    def _course(self, name: str, account: LocalAccount) -> Course:
        point = POINTS[name]
        face = ("threads", "tasks")[list(POINTS).index(name) % 2]
        leader = self._start(face, point=point.fate, how=point.how)
        return Course(account, point, name.split()[1] if not point.fate else None, leader, self.followers)

    def _start(self, face: str, **fated: Any) -> Worker:
        return self._workers.start("crowd_workers.py", face=face, **self._common, **fated)

    def _arrived(self, user: str, step: str) -> None:
        """Hold the leader's first request until the others ask as well; kill it where its time has come."""
        course = self._of_user.get(user)
        if course is None:
            return
        course.follow()
        if step == course.deadly_step and not course.killed:
            course.killed = self.owner(user)
            os.kill(course.killed, signal.SIGKILL)

    def owner(self, user: str) -> int:
        """Return the process that holds the lease."""
        [row] = rows(self.database, "SELECT owner FROM tokenkeep_lease WHERE user_id = ?", user)
        return int(row["owner"].partition("-")[0])

    def run(self) -> None:
        for worker in [*self.followers, *(course.leader for course in self.courses.values())]:
            worker.hear(ready=True)
        with ThreadPoolExecutor(len(self.courses)) as pool:
            list(pool.map(Course.run, self.courses.values()))
        for follower in self.followers:
            follower.leave()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """All the courses, run to their end."""
    with LocalUpstox() as server, Workers() as workers:
        scene = Scene(tmp_path_factory.mktemp("scene"), server, workers)
        scene.run()
        yield scene


@pytest.fixture(params=POINTS)
def course(request: pytest.FixtureRequest, scene: Scene) -> Course:
    return scene.courses[request.param]


@pytest.fixture(params=PAUSED)
def paused(request: pytest.FixtureRequest, scene: Scene) -> Course:
    return scene.courses[request.param]


@pytest.mark.requirement("R7")
def test_all_who_survive_get_one_token_that_works(scene: Scene, course: Course) -> None:
    assert [answer["errors"] for answer in course.answers] == [[]] * len(course.answers)
    assert [answer["count"] for answer in course.answers] == [CALLERS] * len(course.answers)
    [token] = {tuple(token) for answer in course.answers for token in answer["tokens"]}
    assert works(scene.server, token[2])
    with TokenVault.open(f"sqlite:///{scene.database}", keys=scene.keys, providers=[Idle()]) as vault:
        kept = vault.get_valid(course.user)
    assert kept is not None
    assert (kept.id, kept.version, kept.access_token.reveal()) == token


@pytest.mark.requirement("R7")
def test_a_leader_that_comes_to_grief_costs_one_login_at_most(scene: Scene, course: Course) -> None:
    logins = [login for login in scene.server.logins if login.account == course.user]
    assert (len(logins), sum(login.granted for login in logins)) == (course.point.begun, course.point.granted)


@pytest.mark.requirement("R7")
def test_one_row_is_in_place_and_the_trail_tells_what_happened(scene: Scene, course: Course) -> None:
    tokens = rows(scene.database, "SELECT id, version, active FROM tokenkeep_token WHERE user_id = ?", course.user)
    assert [(row["version"], row["active"]) for row in tokens] == [(1, 1)]
    trail = rows(scene.database, "SELECT * FROM tokenkeep_audit WHERE user_id = ? ORDER BY id", course.user)
    assert tuple(row["action"] for row in trail) == course.point.trail
    assert trail[-1]["token_id"] == tokens[0]["id"]
    writers = [course.leader] if course.point is POINTS["after the commit"] else course.followers
    assert int(trail[-1]["actor"].rpartition("/")[2]) in [worker.pid for worker in writers]


def test_the_server_killed_just_those_who_led(scene: Scene) -> None:
    killed = {course.deadly_step: course.killed for course in scene.courses.values() if course.deadly_step}
    assert killed == {step: scene.courses[f"when {step} arrives"].leader.pid for step in LOGIN_STEPS}


def test_no_code_was_sent_twice_and_no_pin_was_wrong(refused: list[str], scene: Scene) -> None:
    assert len(scene.server.logins) >= len(POINTS)
    assert refused == []


@pytest.mark.requirement("R8")
def test_a_leader_that_was_paused_for_longer_than_its_lease_yields_to_its_successor(
    scene: Scene, paused: Course
) -> None:
    [theirs] = {tuple(token) for answer in paused.answers[:-1] for token in answer["tokens"]}
    assert paused.answers[-1]["tokens"] == [list(theirs)]
    [row] = rows(scene.database, "SELECT fence, owner FROM tokenkeep_lease WHERE user_id = ?", paused.user)
    assert row["fence"] > 1
    assert row["owner"] is None


@pytest.fixture(scope="module", autouse=True)
def refused() -> Iterator[list[str]]:
    """What the server found wrong with a code or a PIN: a code that is sent twice is one of those."""
    from tokenkeep.testing._upstox_desk import Desk, Refused  # noqa: PLC0415  # patched here only

    seen: list[str] = []
    counted = Desk._counted

    def noted(desk: Desk, account: LocalAccount, what: str) -> Refused:
        seen.append(what)
        return counted(desk, account, what)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Desk, "_counted", noted)
        yield seen


class Idle:
    """A provider that must not be asked."""

    name = "upstox"
    expiry = None

    def acquire(self, user_id: str) -> Any:
        raise ProviderRejected(UNWANTED, user_id=user_id)


def works(server: LocalUpstox, token: str) -> bool:
    url = f"{server.base_domain.format(stage='api')}/v2/user/profile"
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})  # noqa: S310  # our own server
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=10) as response:
        return bool(response.status == 200)
