"""How often calls may return without letting other tasks run, by itself."""

from __future__ import annotations

import pytest

from anyws._fairness import MAX_CALLS_WITHOUT_YIELD, Fairness
from anyws.sansio._codec import Decoder


class Calls:
    """Counts the calls that may still return so."""

    def __init__(self) -> None:
        self.queue = Decoder(masked=False, max_size=None).queue
        self.fairness = Fairness(self.queue)

    def receive(self) -> bool:
        may = self.fairness.may_receive()
        self.queue.calls_left -= may
        return may

    def send(self) -> bool:
        may = self.fairness.may_send()
        self.fairness.sends.left -= may
        return may


@pytest.mark.parametrize("sends", [0, 1, 31, 32, 33, 63, 64])
@pytest.mark.parametrize("sends_first", [True, False])
def test_so_many_calls_may_return_whatever_they_do(sends: int, sends_first: bool) -> None:
    calls = Calls()
    receives = MAX_CALLS_WITHOUT_YIELD - sends
    order = [calls.send] * sends + [calls.receive] * receives
    for call in order if sends_first else reversed(order):
        assert call()
    assert not calls.send()
    assert not calls.receive()
    calls.fairness.renew()
    assert calls.send()
    assert calls.receive()


def test_so_many_calls_may_return_that_send_to_many_connections() -> None:
    connections = [Calls() for _ in range(100)]
    sent = 0
    while connections[sent % 100].send():
        sent += 1
    assert MAX_CALLS_WITHOUT_YIELD // 2 <= sent <= MAX_CALLS_WITHOUT_YIELD
    assert not any(calls.send() for calls in connections)
    # Others have run, by the wait of any of them.
    connections[-1].fairness.renew()
    assert connections[0].send()
