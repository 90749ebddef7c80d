import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.ask import TeacherAnswers, break_even, reckon
from index.teachers.ledger import Ledger

seconds = st.floats(0.001, 1000)


@given(fixed=seconds, dear=seconds, cheap=seconds)
def test_break_even_is_the_first_number_that_pays(fixed, dear, cheap):
    uses = break_even(fixed, dear, cheap)
    if uses is None:
        assert dear <= cheap
    else:
        assert fixed + uses * cheap <= uses * dear * (1 + 1e-9)
        assert fixed + (uses - 1) * cheap >= (uses - 1) * dear * (1 - 1e-9)


def test_the_account_counts_what_failed(tmp_path, unit_rows):
    with Ledger(tmp_path / "l.sqlite", "t") as ledger:
        calls = ledger.reserve(["a", "b"], 9, 9).calls
        ledger.add(["a", "b"], unit_rows(2, 4), calls, seconds=4.0)
        ledger.lose(ledger.reserve(["c"], 9, 9).calls.values())
        answered = TeacherAnswers(["a", "b"], np.eye(2, 4, dtype=np.float32), 2, 1, 4.0, [])
        cost = reckon(answered, ledger, 500.0, 10.0, 0.4)
    assert (cost["failed_calls"], cost["money"], cost["break_even"]) == (1, 1.5, 3)
    assert cost["break_even_time"] == 10  # 3 answers of 2 s and 10 s of training, at 1.6 s saved
    assert cost["ask_seconds"] == pytest.approx(4)
