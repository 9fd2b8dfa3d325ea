"""gc, verify, publish and the daily run in an object store, as an operator has them."""

import re
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Thread

import numpy as np
import pytest
import xarray as xr
import yaml
from rich.console import Console
from store_support import jobs, publish_all
from test_daily import COLUMNS, EARTH, ROWS, START, STEPS, WINDOW, save_model, values

import deepprofile as dp
from deepprofile import grid, places
from deepprofile.exit_codes import Code
from deepprofile.recipe import load_recipe
from deepprofile.stages.daily import run_daily
from deepprofile.store import CubeError, copy_plain, expire, open_cube, repair, verify
from deepprofile.synthetic.flaws import Flaws
from deepprofile.synthetic.smap import make_smap
from deepprofile.synthetic.smap_files import granule_path, write_smap
from deepprofile.synthetic.truth import make_truth

NO_TIME = timedelta(0)
WORLD_DAYS, FIRST_DAYS = 43, 41


def sizes(url):
    """Bytes of all objects below a prefix, by name."""
    return {name: info["size"] for name, info in places.find(url).items()}


def largest(url):
    """Objects of the cube's chunks, the largest first."""
    found = sizes(f"{url}/chunks")
    return sorted(found, key=lambda name: (-found[name], name))


def remove(url):
    files, path = places.filesystem(url)
    files.rm_file(path)


def flip(url):
    content = bytearray(places.read_bytes(url))
    content[100] ^= 1
    places.write_bytes(url, bytes(content))


def shorten(url):
    places.write_bytes(url, places.read_bytes(url)[:-10])


def test_gc_frees_what_only_expired_snapshots_need(client, s3_url):
    first = publish_all(client, s3_url, jobs())
    last = publish_all(client, s3_url, jobs(offset=5))
    expected, before = open_cube(s3_url).load(), sizes(s3_url)
    now = datetime.now(UTC)
    counted = expire(s3_url, now, dry_run=True, safety=NO_TIME)
    assert sizes(s3_url) == before
    assert expire(s3_url, now, dry_run=True).objects == counted.objects
    done = expire(s3_url, now, safety=NO_TIME)
    after = sizes(s3_url)
    gone = set(before) - set(after)
    assert first in done.snapshots
    assert done.oldest is not None
    assert done.oldest.snapshot_id == last
    assert counted.snapshots == done.snapshots
    assert done.objects == len(gone) > 4
    assert done.bytes == sum(before[name] for name in gone)
    assert 0.8 * done.bytes < counted.bytes <= done.bytes  # without the small metadata
    xr.testing.assert_identical(open_cube(s3_url).load(), expected)
    with pytest.raises(CubeError, match=f"{first} has expired"):
        open_cube(s3_url, snapshot=first)
    assert not expire(s3_url, now, safety=NO_TIME).snapshots
    assert expire(s3_url, now).kept_hours == 24  # said, as nothing of today goes
    publish_all(client, s3_url, jobs(offset=6)[:1])
    assert not verify(s3_url, client=client).problems


def test_young_objects_stay(client, s3_url):
    publish_all(client, s3_url, jobs())
    publish_all(client, s3_url, jobs(offset=5))
    before = sizes(s3_url)
    assert expire(s3_url, datetime.now(UTC)).objects == 0
    assert set(before) <= set(sizes(s3_url))


@pytest.mark.parametrize(
    ("damage", "quick", "what"),
    [
        (flip, False, "is damaged: its checksum"),
        (shorten, True, "the last .* bytes can't be read"),
        (remove, False, "gone from the store"),
    ],
)
def test_damage_is_found_and_repaired(client, s3_url, damage, quick, what):
    publish_all(client, s3_url, jobs())
    expected = open_cube(s3_url).load()
    assert not verify(s3_url, client=client, quick=quick).problems
    damage(largest(s3_url)[0])
    found = verify(s3_url, client=client, quick=quick)
    (problem,) = found.problems
    assert problem.piece is not None
    assert re.search(what, problem.what)
    (piece,) = repair(found)
    publish_all(client, s3_url, [job for job in jobs() if job.key == piece.name])
    assert not verify(s3_url, client=client, quick=quick).problems
    xr.testing.assert_equal(open_cube(s3_url).load(), expected)


def test_a_copy_opens_with_xarray_alone_and_one_cut_short_can_be_replaced(client, s3_url):
    cube, copy = f"{s3_url}/cube", f"{s3_url}/copy"
    publish_all(client, cube, jobs())
    shard = largest(cube)[0]
    content = places.read_bytes(shard)
    remove(shard)
    with pytest.raises(CubeError, match=r"can't be read.*deepprofile verify"):
        copy_plain(cube, copy, client=client)
    assert not places.exists(f"{copy}/zarr.json")
    places.write_bytes(shard, content)
    with pytest.raises(CubeError, match="--overwrite"):
        copy_plain(cube, copy, client=client)
    for _ in range(2):  # over what is left, then over a whole copy
        copied = copy_plain(cube, copy, client=client, overwrite=True)
        read = xr.open_zarr(copy, consolidated=True, decode_coords="all")
        xr.testing.assert_equal(read.load(), open_cube(cube).load())
        assert read.attrs["deepprofile_snapshot"] == copied.snapshot_id
        assert sizes(copy).keys() == {
            n for n in sizes(copy) if n.endswith("zarr.json") or "/c" in n
        }
    with pytest.raises(CubeError, match="is no copy of a cube"):
        copy_plain(cube, cube, client=client, overwrite=True)
    assert not verify(cube, client=client).problems


class World:
    """Granules and a root in the object store."""

    def __init__(self, url, folder):
        self.root, self.archive = f"{url}/root", f"{url}/granules"
        self.source, self.recipe_path = folder / "smap_l4", folder / "daily.yaml"
        latitude, longitude = grid.latitudes(), grid.longitudes()
        document = {
            "name": "small",
            "root": self.root,
            "period": {"start": str(START)},
            "region": {
                "west": float(longitude[COLUMNS[0] + 1]),
                "east": float(longitude[COLUMNS[1] - 2]),
                "north": float(latitude[ROWS[0] + 1]),
                "south": float(latitude[ROWS[1] - 2]),
            },
            "products": {"smap_l4": {"url": self.archive}},
            "terrain": {"urls": [f"{url}/dem.nc"]},
            "ingest": {"min_fraction": STEPS / 8},
            "training": {"window": WINDOW},
            "predict": {"device": "cpu"},
        }
        self.recipe_path.write_text(yaml.safe_dump(document))

    def arrive(self, steps):
        """Let granules come, by number of their step since the start."""
        for step in steps:
            name = granule_path(EARTH, step)
            places.write_bytes(f"{self.archive}/{name}", (self.source / name).read_bytes())

    def run(self, client, asked=None):
        recipe = load_recipe(self.recipe_path)
        return run_daily(recipe, asked, lambda: nullcontext(client), Console(quiet=True))


def steps_of(first, stop):
    return [8 * day + step for day in range(first, stop) for step in range(STEPS)]


@pytest.fixture(scope="module")
def world(client, object_store, tmp_path_factory):
    """A world whose first days were taken in by one run, but for one granule."""
    url, folder = "s3://tests/daily", tmp_path_factory.mktemp("world")
    config = replace(EARTH, n_days=WORLD_DAYS)
    truth = make_truth(config)
    left_out = tuple(step for step in range(8 * WORLD_DAYS) if step % 8 >= STEPS)
    flaws = Flaws(smap_missing=left_out)
    smap = make_smap(config, truth)
    write_smap(smap, truth.domain, config, flaws, folder / "smap_l4", lambda share: None)
    truth.domain.dem[["elevation"]].to_netcdf(folder / "dem.nc", engine="h5netcdf")
    places.write_bytes(f"{url}/dem.nc", (folder / "dem.nc").read_bytes())
    made = World(url, folder)
    save_model(made.root)
    made.arrive(steps_of(0, FIRST_DAYS)[:-1])
    report = made.run(client)
    assert report.code == Code.DONE, report.problem
    return made


def test_daily_runs_of_an_object_store(world, client):
    def line(report, code=Code.DONE):
        assert report.code == code, report.problem
        return values(report.line)

    assert line(world.run(client))["status"] == "nothing"
    world.arrive(steps_of(0, FIRST_DAYS)[-1:])
    late = line(world.run(client))
    assert (late["granules_late"], late["days_added"], late["blocks"]) == ("1", "0", "1")
    assert line(world.run(client, START + timedelta(FIRST_DAYS)), Code.NOT_YET)["steps"] == "0"

    world.arrive(steps_of(FIRST_DAYS, WORLD_DAYS))
    reports = []
    threads = [Thread(target=lambda: reports.append(world.run(client))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    codes = {report.code for report in reports}
    assert len(reports) == 2
    assert Code.DONE in codes
    assert codes <= {Code.DONE, Code.BUSY}
    assert line(world.run(client))["last"] == str(START + timedelta(WORLD_DAYS - 1))
    for name in ("smap_l4", "coefficients"):
        assert not verify(f"{world.root}/cubes/{name}", client=client).problems
    cube = dp.open_cube(f"{world.root}/cubes/coefficients", chunks=None)
    assert np.isfinite(cube["coefficients"][-1].values).any()
