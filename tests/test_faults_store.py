"""An object store that loses replies, fails now and then, or always; and crashes at each write."""

import re

import pytest
from fault_support import (
    Driver,
    contents,
    missing,
    numbers,
    write,
)

from deepprofile.store import CubeError, NotACubeError, history, open_cube
from deepprofile.testing.proxy import proxy_before


@pytest.fixture(scope="module")
def running_proxy(object_store):
    with proxy_before(object_store.endpoint) as proxy:
        yield proxy


@pytest.fixture
def proxy(running_proxy, monkeypatch):
    """The proxy, through which everything in this process now goes."""
    running_proxy.reset()
    monkeypatch.setenv("AWS_ENDPOINT_URL", running_proxy.endpoint)
    yield running_proxy
    running_proxy.reset()


def nth(pattern, number):
    """A rule that holds for the n-th write to a path that has the pattern."""
    seen = []

    def rule(request):
        if request.is_write and re.search(pattern, request.path):
            seen.append(request)
            return len(seen) == number
        return False

    return rule


@pytest.mark.parametrize(
    ("pattern", "number"),
    [
        ("/refs/branch.main/", 1),  # the publication
        ("/refs/branch.staging", 1),  # the creation of the branch
        ("/refs/branch.staging", 2),  # the commit
        ("/snapshots/", 1),
        ("/manifests/", 1),
        ("/chunks/", 1),
    ],
)
def test_a_lost_reply_of_what_succeeded_is_a_success(driver_client, proxy, s3_url, pattern, number):
    write(driver_client, s3_url, 1)
    proxy.lose_reply = nth(pattern, number)
    outcome = write(driver_client, s3_url, 2)
    assert len(proxy.lost) == 1
    assert history(s3_url)[0].snapshot_id == outcome.snapshot_id
    assert [entry.message for entry in history(s3_url)[:2]] == ["number 2", "number 1"]
    assert numbers(s3_url) == {2}
    assert missing(s3_url, 2) == []


def test_every_reply_to_a_write_may_be_lost_once(driver_client, proxy, s3_url):
    paths = set()

    def rule(request):
        fresh = request.is_write and (request.method, request.path) not in paths
        paths.add((request.method, request.path))
        return fresh

    proxy.lose_reply = rule
    write(driver_client, s3_url, 1)  # the creation of the cube too
    write(driver_client, s3_url, 2)
    assert len(proxy.lost) > 10
    assert [entry.message for entry in history(s3_url)[:2]] == ["number 2", "number 1"]
    assert numbers(s3_url) == {2}


def test_a_store_that_fails_every_third_request_costs_only_time(
    driver_client, proxy, s3_url, tmp_path
):
    proxy.fail_every = 3
    write(driver_client, s3_url, 1)
    write(driver_client, s3_url, 2)
    found = contents(s3_url)
    assert proxy.failed > 10
    undisturbed = str(tmp_path / "undisturbed")
    write(driver_client, undisturbed, 2)
    assert found == contents(undisturbed)


def test_a_store_that_fails_always_is_named_and_nothing_is_lost(driver_client, proxy, s3_url):
    write(driver_client, s3_url, 1)

    def fall_silent(_):
        proxy.fail_every = 1
        return ()

    with pytest.raises(CubeError, match=rf"{s3_url}: .*(failed|fell silent)"):
        write(driver_client, s3_url, 2, audit=fall_silent)
    assert 0 < proxy.failed <= 20  # two questions, of which each was asked ten times
    proxy.reset()
    assert numbers(s3_url) == {1}
    write(driver_client, s3_url, 2, missing(s3_url, 2))
    assert numbers(s3_url) == {2}


def test_a_crash_after_any_write_leaves_the_old_or_the_new_and_can_be_mended(
    driver_client, proxy, s3_url, object_store, tmp_path
):
    """The writes of two publications, replayed into a folder up to each of them."""
    log = []
    prefix = "/" + s3_url.removeprefix("s3://") + "/"

    def record(request):
        if request.method == "PUT" and request.path.startswith(prefix):
            log.append((request.path.partition("?")[0].removeprefix(prefix), request.body))

    proxy.before = record
    write(driver_client, s3_url, 1)
    first = len(log)
    write(driver_client, s3_url, 2)
    proxy.before = None
    undisturbed = contents(s3_url)
    states = []
    for count in [0, *range(1, first, 5), *range(first, len(log) + 1)]:
        folder = tmp_path / str(count)
        for path, body in log[:count]:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(body)
        states.append(shown(folder))
        write(driver_client, folder, 2, missing(folder, 2))
        assert contents(folder) == undisturbed
    assert states == sorted(states)
    assert set(states[-(len(log) + 1 - first) :]) == {1, 2}


def shown(folder):
    """Number of the publication that a reader sees; 0 for none, -1 for no cube."""
    try:
        found = numbers(folder)
    except NotACubeError:
        return -1
    except ValueError:  # no days yet
        return 0
    assert len(found) < 2
    return max(found, default=0)


def test_a_driver_that_dies_on_an_object_store_is_replaced(driver_client, s3_url, tmp_path):
    write(driver_client, s3_url, 1)
    before = contents(s3_url)
    with Driver(tmp_path, s3_url, 2, "committed", "die") as driver:
        assert driver.end()[0] == -9
    assert contents(s3_url) == before
    write(driver_client, s3_url, 2, missing(s3_url, 2))
    assert numbers(s3_url) == {2}


def test_nothing_is_made_of_a_place_without_a_cube(proxy, s3_url):
    with pytest.raises(NotACubeError):
        open_cube(s3_url)
