"""The fleet: a short form of its soak, and its manifests."""

from __future__ import annotations

import pytest

from tests.support.fleet import check, soak


@pytest.mark.timeout(240)
def test_a_fleet_whose_machines_are_killed_loses_nothing() -> None:
    books = soak(seconds=10, seed=11, pods=4, workers=2, quiet=True)
    assert books["made"] > 20
    check(books)
