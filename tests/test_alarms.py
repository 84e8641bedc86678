from __future__ import annotations

import threading

from tokenkeep.alarms import Alarms


def test_jobs_run_in_the_order_in_which_they_are_due() -> None:
    alarms, ran, all_set, done = Alarms(), list[str](), threading.Event(), threading.Event()
    alarms.set(lambda: all_set.wait(5), 0.0)
    alarms.set(done.set, 0.3)
    alarms.set(lambda: ran.append("second"), 0.2)
    alarms.set(lambda: ran.append("first"), 0.0)
    all_set.set()
    assert done.wait(5)
    alarms.close()
    assert ran == ["first", "second"]


def test_a_cancelled_job_does_not_run() -> None:
    alarms, ran, done = Alarms(), [], threading.Event()
    number = alarms.set(lambda: ran.append("cancelled"), 0.01)
    alarms.cancel(number)
    alarms.set(done.set, 0.02)
    assert done.wait(5)
    alarms.close()
    assert ran == []


def test_a_job_that_raises_stops_no_other() -> None:
    alarms, done = Alarms(), threading.Event()
    alarms.set(lambda: 1 / 0, 0.0)
    alarms.set(done.set, 0.01)
    assert done.wait(5)
    alarms.close()


def test_closing_waits_for_the_job_that_has_begun_and_for_nothing_else() -> None:
    alarms, begun, go_on, ran = Alarms(), threading.Event(), threading.Event(), []

    def job() -> None:
        begun.set()
        go_on.wait(5)
        ran.append("ended")

    alarms.set(job, 0.0)
    alarms.set(lambda: ran.append("never"), 60.0)
    assert begun.wait(5)
    threading.Timer(0.05, go_on.set).start()
    alarms.close()
    assert ran == ["ended"]


def test_it_can_be_used_again_after_closing() -> None:
    alarms, done = Alarms(), threading.Event()
    alarms.close()
    alarms.set(done.set, 0.0)
    assert done.wait(5)
    alarms.close()
