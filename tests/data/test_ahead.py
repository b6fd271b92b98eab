"""Reading ahead: the same items in the same order, whoever prepared them."""

import multiprocessing
import os

import pytest

from bundle.data.ahead import ReadAhead
from bundle.errors import InputError, input_error_in


class Items:
    """Squares, and the process that computed them; item 2 is faulty, item 4 kills any other process."""

    def __init__(self):
        self.home = os.getpid()

    def __getitem__(self, index):
        if index == 2:
            try:
                raise InputError("is empty", "Give a scan", "/scans/2")
            except InputError as error:
                raise RuntimeError("applying transform") from error
        if index == 4 and os.getpid() != self.home:
            os._exit(1)
        return index**2, os.getpid()


def always(index):
    return True


@pytest.mark.parametrize("processes", [1, 2, 5])
def test_items_come_from_other_processes_in_order(processes):
    ahead = ReadAhead(Items(), processes)
    found = [(number, *ahead[number]) for number in ahead.follow([0, 1, 3, 5, 6], lambda number: number != 3)]
    assert [(number, square) for number, square, _ in found] == [(0, 0), (1, 1), (3, 9), (5, 25), (6, 36)]
    assert [pid == os.getpid() for _, _, pid in found] == [False, False, True, False, False]


def test_no_more_is_begun_than_there_are_processes():
    """What was begun is what memory has to hold."""
    ahead, begun = ReadAhead(Items(), 2), []
    for number in ahead.follow([0, 1, 3, 5, 6, 7], lambda number: begun.append(number) or True):
        assert len(begun) <= [0, 1, 3, 5, 6, 7].index(number) + 3
        ahead[number]
    assert begun == [0, 1, 3, 5, 6, 7]


def test_without_processes_each_is_prepared_in_its_turn():
    ahead = ReadAhead(Items(), 0)
    asked = iter([0, 1])
    numbers = ahead.follow(asked, always)
    assert next(numbers) == 0 and ahead[0] == (0, os.getpid())
    assert list(asked) == [1]  # not taken from the others, who may share a queue


def test_an_error_arrives_as_it_is():
    ahead = ReadAhead(Items(), 1)
    for number in ahead.follow([1, 2, 3], always):
        if number != 2:
            assert ahead[number][1] != os.getpid()
            continue
        with pytest.raises(RuntimeError, match="applying transform") as raised:
            ahead[number]
        assert str(input_error_in(raised.value)) == "/scans/2: is empty. Give a scan"


def test_a_process_that_dies_is_told_and_costs_no_subject(caplog):
    ahead = ReadAhead(Items(), 1)
    assert [ahead[number][0] for number in ahead.follow([3, 4, 5, 6], always)] == [9, 16, 25, 36]
    assert [record.message for record in caplog.records] == [
        "a process that prepared subjects ahead has died: from here on each is prepared in its turn"
    ]


def test_a_system_that_cannot_fork(monkeypatch):
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: ["spawn"])
    ReadAhead(Items(), 0)
    with pytest.raises(InputError, match="read_ahead is 1, but this system cannot fork. Use --read_ahead 0"):
        ReadAhead(Items(), 1)
