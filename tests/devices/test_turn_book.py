"""Whose turn is next, on a clock that only the test moves."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexray.devices.turns.book import HANG, MILLISECOND, SECOND, TURN, WINDOW, TurnBook
from flexray.model.amounts import Share


@dataclass
class Tenant:
    """A slice that wants the device from ``start`` until ``stop``, in steps, with a pause after each."""

    share: int
    burst: int = 1000
    step: int = 5 * MILLISECOND
    pause: int = 0
    start: int = 0
    stop: int = 10**18


class Room:
    """Tenants at one device. A tenant's step is never cut short; a turn ends with the step in which it runs out."""

    def __init__(self, tenants: Mapping[str, Tenant]) -> None:
        self.book, self.tenants, self.now = TurnBook(), dict(tenants), 0
        self.wants = {name: tenant.start for name, tenant in tenants.items()}
        self.turns: list[tuple[str, int, int]] = []
        for name, tenant in tenants.items():
            self.book.join(name, Share(tenant.share), Share(tenant.burst), 0)

    def run(self, until: int) -> Room:
        while self.now < until:
            for name, at in self.wants.items():
                if at <= self.now < self.tenants[name].stop:
                    self.book.ask(name, self.now)
            name = self.book.next(self.now)
            if name:
                self._use(name)
            else:
                due = [at for at in self.wants.values() if at > self.now]
                self.now = min([*due, self.book.wake(self.now) or until, until])
        return self

    def _use(self, name: str) -> None:
        tenant, begun = self.tenants[name], self.now
        steps = 1 if tenant.pause else -(-TURN // tenant.step)
        self.now += steps * tenant.step
        self.book.give_back(name, self.now)
        self.turns.append((name, begun, self.now))
        self.wants[name] = self.now + tenant.pause
        if self.now >= tenant.stop:
            self.book.withdraw(name)
            self.wants[name] = 10**18

    def shares(self, since: int = 0) -> dict[str, float]:
        """Part of the time since then."""
        used = dict.fromkeys(self.tenants, 0)
        for name, begun, ended in self.turns:
            used[name] += max(0, ended - max(begun, since))
        return {name: amount / (self.now - since) for name, amount in used.items()}


@pytest.mark.parametrize(
    ("tenants", "expected"),
    [
        ([Tenant(250), Tenant(750)], [0.25, 0.75]),
        ([Tenant(200), Tenant(300), Tenant(500)], [0.2, 0.3, 0.5]),
        ([Tenant(250)], [1.0]),
        ([Tenant(250, burst=250)], [0.25]),
        ([Tenant(250, burst=500)], [0.5]),
        ([Tenant(200, burst=200), Tenant(300)], [0.2, 0.8]),
        ([Tenant(200, burst=400), Tenant(300, burst=300)], [0.4, 0.3]),
        ([Tenant(250), Tenant(250)], [0.5, 0.5]),
        ([Tenant(100), Tenant(300)], [0.25, 0.75]),
        ([Tenant(250, step=300 * MILLISECOND), Tenant(750)], [0.25, 0.75]),
        ([Tenant(250, burst=250, step=300 * MILLISECOND), Tenant(750)], [0.25, 0.75]),
        ([Tenant(250, burst=250, step=300 * MILLISECOND)], [0.25]),
        ([Tenant(250), Tenant(750, step=MILLISECOND, pause=9 * MILLISECOND)], [0.98, 0.02]),
        ([Tenant(1)] * 3, [1 / 3] * 3),
    ],
)
def test_shares(tenants: list[Tenant], expected: list[float]) -> None:
    room = Room({f"s{number}": tenant for number, tenant in enumerate(tenants)}).run(60 * SECOND)
    assert list(room.shares().values()) == pytest.approx(expected, abs=0.01)


def test_what_is_idle_is_lent_and_back_within_one_turn() -> None:
    owner = Tenant(750, start=5 * SECOND)
    room = Room({"guest": Tenant(250), "owner": owner}).run(5 * SECOND)
    assert room.shares()["guest"] == pytest.approx(1.0)
    room.run(6 * SECOND)
    first = next(begun for name, begun, _ in room.turns if name == "owner")
    assert first - owner.start <= TURN
    guest = room.book.accounts(room.now)["guest"]
    assert guest.lent == pytest.approx(0.75 * 5 * SECOND, abs=3 * TURN)
    assert room.book.accounts(room.now)["owner"].lent == 0


def test_a_newcomer_neither_starves_nor_takes_all() -> None:
    room = Room({"old": Tenant(500), "new": Tenant(500, start=30 * SECOND)}).run(31 * SECOND)
    after = [name for name, begun, _ in room.turns if begun >= 30 * SECOND]
    assert max(len(list(group)) for _, group in itertools.groupby(after)) <= 4
    assert room.shares(30 * SECOND)["new"] == pytest.approx(0.5, abs=0.15)


def test_a_pause_saves_one_turn_up_and_no_more() -> None:
    room = Room({"steady": Tenant(500), "other": Tenant(500, stop=SECOND)}).run(20 * SECOND)
    room.tenants["other"].stop, room.wants["other"] = 10**18, room.now
    room.run(22 * SECOND)
    assert room.shares(20 * SECOND)["other"] == pytest.approx(0.5, abs=0.1)


def test_a_capped_slice_saves_little_over_a_pause() -> None:
    room = Room({"capped": Tenant(250, burst=250, start=30 * SECOND)}).run(35 * SECOND)
    assert room.shares(30 * SECOND)["capped"] == pytest.approx(0.25, abs=0.04)


def test_weights_and_caps_change_from_the_next_turn_on() -> None:
    room = Room({"a": Tenant(250), "b": Tenant(750)}).run(10 * SECOND)
    room.book.join("a", Share(750), Share(1000), room.now)
    room.book.join("b", Share(250), Share(250), room.now)
    room.run(20 * SECOND)
    assert room.shares(10 * SECOND)["a"] == pytest.approx(0.75, abs=0.02)


def test_a_hung_holder_loses_its_turn_and_pays_for_what_it_held() -> None:
    book = TurnBook()
    book.join("hung", Share(500), Share(1000), 0)
    book.join("other", Share(500), Share(1000), 0)
    book.ask("hung", 0)
    assert book.next(0) == "hung"
    book.ask("other", 0)
    assert book.next(TURN + HANG - 1) == "" and book.wake(0) == TURN + HANG
    assert book.next(TURN + HANG) == "other"
    book.give_back("hung", 5 * SECOND)
    assert book.accounts(5 * SECOND)["hung"].used == 5 * SECOND
    book.give_back("other", 5 * SECOND)
    for name in ("hung", "other"):
        book.ask(name, 5 * SECOND)
    assert book.next(5 * SECOND) == "other"


def test_a_debt_is_forgotten_after_the_window() -> None:
    room = Room({"a": Tenant(500, step=1000 * SECOND), "b": Tenant(500)})
    room.run(1000 * SECOND)
    assert room.turns[0][0] == "a"
    room.tenants["a"].step = 5 * MILLISECOND
    room.run(room.now + WINDOW)
    assert "a" in [name for name, begun, _ in room.turns if begun >= 1000 * SECOND]


def test_time_in_which_there_was_nothing_to_do_is_not_billed() -> None:
    book = TurnBook()
    book.join("a", Share(500), Share(1000), 0)
    book.ask("a", 0)
    book.next(0)
    book.give_back("a", 50, idle=30)
    book.give_back("a", 99)  # again: it holds nothing
    assert book.accounts(99)["a"].used == 20
    book.ask("a", 100)
    book.next(100)
    book.give_back("a", 110, idle=10**9)  # more than it held
    assert book.accounts(110)["a"].used == 20


def test_the_turn_of_one_that_leaves_is_free() -> None:
    book = TurnBook()
    for name in ("a", "b"):
        book.join(name, Share(500), Share(1000), 0)
        book.ask(name, 0)
    assert book.next(0) == "a"
    book.leave("a")
    book.leave("a")
    assert book.next(1) == "b" and list(book.accounts(1)) == ["b"]
    book.give_back("b", 2)
    assert book.next(3) == "" and book.wake(3) is None


def test_one_that_withdraws_gets_no_turn() -> None:
    book = TurnBook()
    book.join("a", Share(500), Share(1000), 0)
    book.ask("a", 0)
    book.withdraw("a")
    assert book.next(0) == ""


tenants = st.builds(
    Tenant,
    share=st.integers(10, 300),
    step=st.integers(1, 200).map(lambda ms: ms * MILLISECOND),
    pause=st.sampled_from([0, 0, MILLISECOND, 80 * MILLISECOND]),
    start=st.sampled_from([0, 0, 3 * SECOND]),
)


@given(st.lists(tenants, min_size=1, max_size=3), st.booleans())
def test_whoever_always_wants_it_gets_its_share(others: list[Tenant], capped: bool) -> None:
    """Whatever the others do, within one step of each of them and a turn of its own over fifteen seconds."""
    room = Room({"me": Tenant(100, burst=100 if capped else 1000)} | {f"s{n}": other for n, other in enumerate(others)})
    room.run(5 * SECOND).run(20 * SECOND)
    slack = (sum(other.step + TURN for other in others) + 2 * TURN) / (15 * SECOND)
    assert room.shares(5 * SECOND)["me"] >= 0.1 - slack
    if capped:
        assert room.shares(5 * SECOND)["me"] <= 0.1 + slack
