"""Amounts: what is accepted, how it is rounded, what is refused."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexray.errors import InvalidRequest
from flexray.model.amounts import format_memory, parse_cpus, parse_memory, parse_share, share_as_float, share_of

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("value", "share", "devices"),
    [
        (0.25, 250, 1),
        (0.333, 333, 1),
        (1 / 3, 333, 1),
        (2 / 3, 667, 1),
        (0.57, 570, 1),  # 0.57 * 1000 is 569.99... in binary
        (0.69, 690, 1),
        (0.001, 1, 1),
        (0.0005, 1, 1),
        (0.0015, 2, 1),
        (0.9994, 999, 1),
        (0.9995, 1000, 1),
        (Decimal("0.5"), 500, 1),
        (1, 1000, 1),
        (1.0, 1000, 1),
        (2.0, 1000, 2),
        (3, 1000, 3),
    ],
)
def test_shares(value: object, share: int, devices: int) -> None:
    assert parse_share(value) == (share, devices)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "gpu=0 must be above 0"),
        (-1, "gpu=-1 must be above 0"),
        (-0.25, "must be above 0"),
        (NAN, "finite"),
        (INF, "finite"),
        (-INF, "finite"),
        (Decimal("sNaN"), "finite"),
        (1.5, "neither a fraction of one device (0 < gpu <= 1) nor a whole number of devices; ask for gpu=2"),
        (1.0004, "neither"),
        (0.0001, "below the smallest share"),
        (0.00049, "below the smallest share"),
        (1e30, "too large"),
        (True, "must be a number, got True (bool)"),
        ("0.5", "must be a number, got '0.5' (str)"),
        (None, "must be a number"),
        (1j, "must be a number"),
    ],
)
def test_refused_shares(value: object, words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_share(value, "gpu")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("value", "mib"),
    [
        ("4GiB", 4096),
        ("4 gib", 4096),
        (" 512 MiB ", 512),
        ("1.5GB", 1431),  # 1430.51...
        ("1TB", 953674),
        ("2TiB", 2 * 2**20),
        ("1024KiB", 1),
        ("1048576", 1),
        ("1048576B", 1),
        (2**30, 1024),
        (1.5 * 2**20, 2),
        (2**20 * 1.4999, 1),
        (2**19, 1),  # half a MiB rounds up
    ],
)
def test_memory(value: object, mib: int) -> None:
    assert parse_memory(value) == mib


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("4 gigs", 'memory="4 gigs" is not an amount of memory'),
        ("-1GiB", "not an amount of memory"),
        ("", "not an amount of memory"),
        ("GiB", "not an amount of memory"),
        ("4G", "not an amount of memory"),
        ("1e3MiB", "not an amount of memory"),
        ("1,5GiB", "not an amount of memory"),
        ("4GiB!", "not an amount of memory"),
        ("٤GiB", "not an amount of memory"),
        ("0GiB", "less than 1 MiB"),
        (0, "less than 1 MiB"),
        (-(2**30), "less than 1 MiB"),
        (4096, "a bare number counts bytes"),
        (2**19 - 1, "less than 1 MiB"),
        (NAN, "finite"),
        (INF, "finite"),
        (True, "must be a number"),
        (None, "must be a number"),
        (10**40, "too large"),
        ("9" * 40 + "GiB", "too large"),
    ],
)
def test_refused_memory(value: object, words: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_memory(value)
    assert words in str(caught.value)


@pytest.mark.parametrize(("value", "cpus"), [(0, 0), (0.5, 500), (4, 4000), (0.0005, 1), (0.0004, 0)])
def test_cpus(value: object, cpus: int) -> None:
    assert parse_cpus(value) == cpus


@pytest.mark.parametrize("value", [-1, -0.001, NAN, INF, True, "2", None, 10**40])
def test_refused_cpus(value: object) -> None:
    with pytest.raises(InvalidRequest, match="cpus"):
        parse_cpus(value)


@given(st.integers(1, 1000))
def test_every_share_survives_the_way_to_the_user_and_back(share: int) -> None:
    assert parse_share(share_as_float(share)) == (share, 1)


@given(st.integers(1, 2**39))
def test_formatted_memory_reads_back_within_its_precision(mib: int) -> None:
    back = parse_memory(format_memory(mib))
    assert back == mib if mib < 1024 else abs(back - mib) <= 52  # a twentieth of a GiB, rounded
    assert parse_memory(f"{mib}MiB") == parse_memory(mib * 2**20) == mib


@given(st.integers(1, 2**20), st.lists(st.integers(1, 1000), max_size=20))
def test_parts_never_exceed_the_whole(total: int, shares: list[int]) -> None:
    kept = [share for at, share in enumerate(shares) if sum(shares[: at + 1]) <= 1000]
    assert sum(share_of(total, share) for share in kept) <= total
    assert share_of(total, 1000) == total


@given(st.one_of(st.floats(), st.integers(), st.text(), st.booleans(), st.none(), st.decimals()))
def test_any_value_is_an_amount_or_an_invalid_request(value: object) -> None:
    for parse in (parse_share, parse_memory, parse_cpus):
        try:
            result = parse(value)
        except InvalidRequest:
            continue
        assert all(type(part) is int for part in (result if isinstance(result, tuple) else (result,)))
