import threading
import time

from app.page.background import Background


def test_work_is_done_once_for_everyone_who_asks_and_tells_how_far_it_is():
    go, calls = threading.Event(), []

    def work(report):
        calls.append(1)
        report(0.5)
        go.wait(10)
        return "done"

    background = Background(work)
    assert not background.ended
    assert not background.wait(0)
    for _ in range(5):
        background.start()
    while not background.done:
        time.sleep(0.001)
    assert (background.done, background.result) == (0.5, None)
    go.set()
    assert background.wait(10)
    background.start()
    assert background.result == "done"
    assert calls == [1]


def test_failed_work_says_why_and_is_tried_again():
    outcomes = [ValueError("no luck"), "luck"]

    def work(report):
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    background = Background(work)
    background.start()
    assert background.wait(10)
    assert (background.result, background.error) == (None, "no luck")
    background.start()
    assert background.wait(10)
    assert (background.result, background.error) == ("luck", "")


def test_work_that_fails_between_two_looks_is_not_begun_again_before_it_has_said_so():
    calls = []

    def work(report):
        calls.append(1)
        raise ValueError("no luck")

    background = Background(work)
    background.start()
    while not background.ended:
        time.sleep(0.001)
    background.start()  # the next poll
    assert background.wait(0)
    assert (background.error, calls) == ("no luck", [1])
