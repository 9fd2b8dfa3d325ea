"""Readers beside a publisher, and two publishers at once; locally and in an object store."""

import json
import os
import threading

import pytest
from fault_support import (
    POINTS,
    Driver,
    assert_nothing_is_lost,
    contents,
    context,
    missing,
    numbers,
    read_forever,
    template,
    wait_for_a_read,
    write,
)

from deepprofile.store import ConflictError, history
from deepprofile.store.repository import open_or_create, open_repository

PUBLICATIONS = 50


@pytest.fixture(params=["local", "s3"])
def url(request, tmp_path):
    if request.param == "local":
        return str(tmp_path / "cube")
    return request.getfixturevalue("s3_url")


def test_a_reader_sees_one_publication_at_a_time_through_fifty(driver_client, url, tmp_path):
    write(driver_client, url, 0)
    known = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    reader = context.Process(target=read_forever, args=(url, str(tmp_path), known))
    reader.start()
    try:
        wait_for_a_read(tmp_path, 0)
        for number in range(1, PUBLICATIONS + 1):
            write(driver_client, url, number)
            wait_for_a_read(tmp_path, number)
    finally:
        (tmp_path / "stop").touch()
        reader.join()
    assert reader.exitcode == 0
    reads = [json.loads(line) for line in (tmp_path / "reads").read_text().splitlines()]
    seen = [shown for shown, _ in reads]
    assert all(len(shown) == 1 for shown in seen)
    assert seen == sorted(seen)
    assert {shown[0] for shown in seen} == set(range(PUBLICATIONS + 1))
    assert all(held == [0] for _, held in reads)
    assert numbers(url) == {PUBLICATIONS}


def test_a_second_driver_on_a_local_disk_is_turned_away_and_runs_later(driver_client, tmp_path):
    url = str(tmp_path / "cube")
    write(driver_client, url, 1)
    with Driver(tmp_path, url, 2, "jobs", "wait") as first:
        first.wait_until_it_waits()
        with pytest.raises(ConflictError, match="another process is publishing to this cube"):
            write(driver_client, url, 3)
        assert numbers(url) == {1}
        assert first.end() == (0, "published")
    assert numbers(url) == {2}
    assert missing(url, 2) == []
    write(driver_client, url, 3, missing(url, 3))
    assert numbers(url) == {3}


@pytest.mark.parametrize("point", POINTS[:4])
def test_a_driver_that_is_overtaken_in_an_object_store_gets_a_conflict(
    driver_client, undisturbed, s3_url, tmp_path, point
):
    write(driver_client, s3_url, 1)
    with Driver(tmp_path, s3_url, 2, point, "wait") as first:
        first.wait_until_it_waits()
        write(driver_client, s3_url, 3)
        overtaken = contents(s3_url)
        report = first.error("ConflictError")
    assert "somebody else has published meanwhile" in report
    assert "Run the stage again" in report
    assert_nothing_is_lost(driver_client, s3_url, overtaken, undisturbed)
    assert open_repository(s3_url).list_branches() == {"main"}


def test_a_newcomer_does_not_stop_a_driver_that_is_at_work(driver_client, s3_url, tmp_path):
    write(driver_client, s3_url, 1)
    with (
        Driver(tmp_path, s3_url, 2, "jobs", "wait") as first,
        Driver(tmp_path, s3_url, 3, "committed", "wait") as second,
    ):
        first.wait_until_it_waits()
        second.wait_until_it_waits()
        assert first.end() == (0, "published")
        assert second.end()[1].startswith("ConflictError: ")
    assert numbers(s3_url) == {2}


def test_of_two_that_finish_at_once_one_publishes(driver_client, s3_url, tmp_path):
    write(driver_client, s3_url, 1)
    for round_ in range(3):
        first, second = 10 + 2 * round_, 11 + 2 * round_
        with (
            Driver(tmp_path, s3_url, first, "committed", "wait") as one,
            Driver(tmp_path, s3_url, second, "committed", "wait") as other,
        ):
            one.wait_until_it_waits()
            other.wait_until_it_waits()
            one.marker.touch()
            other.marker.touch()
            reports = {first: one.end()[1], second: other.end()[1]}
        winners = [number for number, text in reports.items() if text == "published"]
        assert len(winners) == 1
        assert sum(text.startswith("ConflictError: ") for text in reports.values()) == 1
        assert numbers(s3_url) == set(winners)
        assert next(entry.message for entry in history(s3_url)) == f"number {winners[0]}"


def test_drivers_that_create_a_cube_at_once_make_one(driver_client, s3_url):
    heads = []
    for round_ in range(8):
        url, together = f"{s3_url}/{round_}", threading.Barrier(3)

        def create(url=url, together=together):
            together.wait()
            heads.append(open_or_create(url, template()).lookup_branch("main"))

        drivers = [threading.Thread(target=create) for _ in range(3)]
        for driver in drivers:
            driver.start()
        for driver in drivers:
            driver.join()
        assert len(heads) == 3
        assert len(set(heads)) == 1
        heads.clear()
    write(driver_client, url, 1)
    assert numbers(url) == {1}


def test_a_plan_made_before_somebody_else_published_is_not_carried_out(driver_client, url):
    planned_at = write(driver_client, url, 1).snapshot_id
    write(driver_client, url, 2)
    with pytest.raises(ConflictError, match="since this run looked what is to do"):
        write(driver_client, url, 3, planned_at=planned_at)
    assert numbers(url) == {2}
