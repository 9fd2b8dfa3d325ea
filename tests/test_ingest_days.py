"""Which days a granule touches, and which days are made anew."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from deepprofile.products import Granule
from deepprofile.products.base import hours_of
from deepprofile.stages.ingest_changes import spans
from deepprofile.stages.ingest_days import (
    Arrival,
    MadeOf,
    arrivals,
    list_days,
    made_of,
    revise,
)
from deepprofile.store.layout import BLOCK_DAYS, EPOCH, day_at

ZERO = np.datetime64(EPOCH, "s")


def granule(name, *hours):
    """A granule with its steps in hours after the epoch."""
    times = ZERO + np.array([int(hour * 60) for hour in hours]).astype("timedelta64[m]")
    return Granule(f"/archive/{name}", times[0], times[-1], len(times), hours=hours_of(times))


def listed(*granules, tag="1"):
    return list_days(granules, {g.url: tag for g in granules})


def test_a_step_at_midnight_belongs_to_the_day_that_it_begins():
    listing = listed(granule("a", 24.0), granule("b", 47.5))
    assert list(listing.hours) == [1]
    assert listing.day(1, "s").hours == 1 | 1 << 23
    assert listing.day(0, "s") == MadeOf("s")


def test_a_granule_of_many_steps_touches_each_of_its_days_with_its_own_hours():
    month = granule("month", *range(12, 24 * 3 + 1))  # hourly, up to 00:00 of the fourth day
    listing = listed(month)
    assert listing.day(0, "s").hours == sum(1 << hour for hour in range(12, 24))
    assert listing.day(1, "s").hours == listing.day(2, "s").hours == 2**24 - 1
    assert listing.day(3, "s").hours == 1
    assert listing.touching([2]) == (month,)
    assert listing.touching([4]) == ()


def test_a_granule_of_scattered_days_touches_these_alone():
    whole = [*range(24), *range(24 * 4, 24 * 5)]
    listing = listed(granule("scattered", *whole, *range(24 * 8, 24 * 8 + 12)))
    assert sorted(listing.hours) == [0, 4, 8]
    assert [listing.day(day, "s").hours for day in (0, 4, 8)] == [2**24 - 1, 2**24 - 1, 2**12 - 1]


def test_a_granule_of_one_step_without_hours_lies_where_its_times_say():
    alone = Granule("/a", ZERO + np.timedelta64(90, "m"), ZERO + np.timedelta64(90, "m"))
    assert listed(alone).day(0, "s").hours == 2


def test_granules_of_several_days_keep_the_order_of_reading():
    # Final data come before preliminary data of the same days, wherever these begin.
    order = [granule("final 0", *range(24)), granule("final 1", *range(24, 48))]
    order.append(granule("preliminary", *range(48)))
    assert listed(*order).touching([0, 1]) == tuple(order)
    assert listed(*order).touching([1]) == tuple(order[1:])


def test_another_tag_is_another_day_and_the_ledger_gives_back_what_it_took():
    first, again = listed(granule("a", 1.5)), listed(granule("a", 1.5), tag="2")
    assert first.day(0, "s") != again.day(0, "s")
    for day in (first.day(0, "s"), MadeOf("s")):
        assert made_of(day.text) == day


def test_the_ledger_of_a_block_of_many_granules_is_small():
    year = [granule(f"SMAP_{i}", 1.5 + 3 * i) for i in range(8 * BLOCK_DAYS)]
    listing = listed(*year)
    noted = [listing.day(day, "12345678").text for day in range(BLOCK_DAYS)]
    assert sum(map(len, noted)) < 3000


def test_only_days_of_other_granules_or_settings_are_fresh_and_lost_ones_stay():
    old = [MadeOf("s", 0b11, ("a", "b")), MadeOf("s", 0b11, ("c", "d")), MadeOf("s", 0b1, ("e",))]
    now = [old[0], MadeOf("s", 0b11, ("c", "x")), MadeOf("s"), MadeOf("s", 0b1, ("n",))]
    found = revise(old, now)
    assert found.fresh == (1, 3)
    assert found.lost == (2,)
    assert found.days == (old[0], now[1], old[2], now[3])
    assert revise(found.days, now).fresh == ()
    others = [MadeOf("t", day.hours, day.granules) for day in now]
    assert revise(old, others).fresh == (0, 1, 3)


def test_a_late_granule_of_a_day_that_lost_others_does_not_take_them_along():
    found = revise([MadeOf("s", 0b110, ("a", "b"))], [MadeOf("s", 0b1001, ("n", "m"))])
    assert found.fresh == ()
    assert found.lost == (0,)


def test_hours_that_could_not_be_read_are_not_missed_when_they_are_gone():
    held, never = made_of("s b a b"), made_of("s b a b", "8")
    assert (held.held, never.held) == (0b1011, 0b11)
    assert held == never
    now = [MadeOf("s", 0b11, ("a",))]
    assert revise([held], now).lost == (0,)
    assert revise([never], now).fresh == (0,)
    assert revise([never], [held]).fresh == ()
    assert arrivals(never, {"x": 8}, latest=False) == {"x": Arrival.LATE}


def test_granules_are_new_late_or_replaced():
    before = MadeOf("s", 0b11, ("a", "b"))
    now = {"a": 0b1, "x": 0b10, "y": 0b100}
    found = arrivals(before, now, latest=False)
    assert found == {"x": Arrival.REPLACED, "y": Arrival.LATE}
    assert arrivals(None, {"z": 1}, latest=True) == {"z": Arrival.NEW}
    assert arrivals(MadeOf("s"), {"z": 1}, latest=False) == {"z": Arrival.LATE}


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=6))
def test_revising_ends_and_never_loses_an_hour(steps):
    """Whatever arrives in whatever order: a second look finds nothing, hours only grow."""
    published: list[MadeOf] = []
    for hours, version in steps:
        now = [MadeOf("s", hours, (f"v{version}",) if hours else ())]
        found = revise(published, now)
        before = published[0].hours if published else 0
        assert found.days[0].hours & before == before
        assert revise(found.days, now).fresh == ()
        published = list(found.days)


def test_days_are_named_as_ranges():
    days = [day_at(i) for i in (0, 1, 2, 7)]
    assert spans(days) == "2015-03-31 to 2015-04-02, 2015-04-07 (4 days)"
    assert spans([day_at(0)]) == "2015-03-31"
