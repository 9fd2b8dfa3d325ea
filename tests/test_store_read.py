import os
from pathlib import Path

import dask
import icechunk
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from store_support import N_DAYS, REGION, jobs, moisture, template, write_block

from deepprofile.store import (
    CubeError,
    NotACubeError,
    Tile,
    Writer,
    coefficients_template,
    open_cube,
    publish,
    read_cells,
    read_tile,
)
from deepprofile.store.repository import local_path, open_or_create
from deepprofile.store.template import extend


def make(url, made, n_days, arrays):
    """A cube whose arrays hold the given values, written without a cluster."""
    repository = open_or_create(url, made)
    session = repository.writable_session("main")
    if n_days:
        extend(zarr.open_group(session.store), n_days)
    writer = Writer(session)
    for name, values in arrays.items():
        writer.write(name, {}, values)
    session.commit("all")
    return url


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    steps = np.full((N_DAYS, *REGION.shape), 24, np.uint8)
    path = tmp_path_factory.mktemp("cubes") / "era5"
    return make(str(path), template(), N_DAYS, {"soil_moisture": moisture(), "n_steps": steps})


def test_chunks_are_whole_shards(url):
    cube = open_cube(url)
    assert cube["soil_moisture"].chunks == ((32, 8), (2,), (56,), (64, 16))
    assert cube["n_steps"].chunks == ((32, 8), (56,), (64, 16))
    assert open_cube(url, chunks=None)["soil_moisture"].chunks is None


def test_a_dask_task_reads_its_shard_at_once(url, monkeypatch):
    read = []
    get = icechunk.IcechunkStore.get

    async def counting(self, key, *args, **keys):
        if "/c/" in key:
            read.append(key)
        return await get(self, key, *args, **keys)

    cube = open_cube(url)
    monkeypatch.setattr(icechunk.IcechunkStore, "get", counting)
    with dask.config.set(scheduler="synchronous"):
        cube["soil_moisture"].compute()
    assert sorted(read) == sorted(set(read))
    assert len(read) == 4


def test_types_and_coordinates_are_plain(url):
    cube = open_cube(url)
    assert cube["n_steps"].dtype == np.uint8
    assert cube["soil_moisture"].dtype == np.float32
    assert cube["time"].dtype == np.dtype("datetime64[ns]")
    assert cube["product"].dtype.kind == "U"
    assert set(cube.data_vars) == {"soil_moisture", "n_steps"}
    assert {"latitude", "longitude", "spatial_ref"} <= set(cube.coords)


def mean_of(dataset):
    return float(dataset["soil_moisture"].isel(time=0).mean())


@pytest.mark.parametrize("chunks", ["shard", None])
def test_datasets_travel_to_workers(client, url, chunks):
    cube = open_cube(url, chunks=chunks)
    expected = float(moisture()[0].mean())
    assert client.submit(mean_of, cube).result() == pytest.approx(expected, rel=1e-5)


def test_lazy_work_runs_on_the_cluster(client, url):
    result = open_cube(url)["soil_moisture"].max("time").compute()
    np.testing.assert_array_equal(result.values, moisture().max(axis=0))


def test_the_profile_accessor_is_there(tmp_path):
    made = coefficients_template(REGION, flag_attributes={}, keep_bits=None)
    values = np.random.default_rng(0).normal(size=(2, 10, *REGION.shape)).astype(np.float32)
    cube = open_cube(make(tmp_path / "c", made, 2, {"coefficients": values}))
    at_surface = cube.profile.at(0.0)
    np.testing.assert_allclose(at_surface.values, values[:, 0], rtol=1e-6)
    assert (cube["flag"].values == 255).all()


@settings(deadline=None, max_examples=15)
@given(st.lists(st.tuples(st.integers(0, 55), st.integers(0, 79)), max_size=12))
def test_cells_are_read_in_their_order(url, cells):
    rows = np.array([row for row, _ in cells], dtype=int)
    columns = np.array([column for _, column in cells], dtype=int)
    found = read_cells(
        url, "soil_moisture", rows + REGION.rows.start, columns + REGION.columns.start
    )
    expected = np.moveaxis(moisture()[:, :, rows, columns], -1, 0)
    np.testing.assert_array_equal(found, expected)


@pytest.fixture
def read(monkeypatch) -> list[str]:
    """Keys of the shards that are read from now on, in their order."""
    keys: list[str] = []
    get = icechunk.IcechunkStore.get

    async def counting(self, key, *args, **options):
        if "/c/" in key:
            keys.append(key)
        return await get(self, key, *args, **options)

    monkeypatch.setattr(icechunk.IcechunkStore, "get", counting)
    return keys


def test_each_shard_is_read_once_for_all_its_cells(url, read):
    cube = open_cube(url, chunks=None)
    read.clear()  # the coordinates were read when the cube was opened
    rows = np.arange(REGION.rows.start, REGION.rows.stop)
    read_cells(cube, "soil_moisture", rows, np.full(rows.size, REGION.columns.start + 3))
    assert len(read) == 2  # both blocks of the first tile


@pytest.mark.parametrize("days", [(0, 40), (5, 35), (33, 34), (7, 7)])
def test_cells_of_some_days_are_read_from_the_shards_of_these_days(url, days, read):
    cube = open_cube(url, chunks=None)
    read.clear()  # the coordinates were read when the cube was opened
    rows, columns = np.array([3, 9, 5]), np.array([70, 2, 79])
    found = read_cells(
        cube,
        "soil_moisture",
        rows + REGION.rows.start,
        columns + REGION.columns.start,
        days,
    )
    expected = np.moveaxis(moisture()[slice(*days)][:, :, rows, columns], -1, 0)
    np.testing.assert_array_equal(found, expected)
    assert len(read) == 2 * len({day // 32 for day in range(*days)})  # of both tiles


@pytest.mark.parametrize("chunks", ["shard", None])
@pytest.mark.parametrize("days", [None, (0, 40), (5, 35), (33, 34), (7, 7)])
def test_a_tile_is_read_block_by_block(url, chunks, days):
    cube = open_cube(url, chunks=chunks)
    start, stop = days or (0, N_DAYS)
    found = read_tile(cube, "soil_moisture", Tile(28, 60), days)
    np.testing.assert_array_equal(found, moisture()[start:stop, :, :, 64:])


def test_places_outside_the_cube_are_named(url):
    with pytest.raises(ValueError, match="row 3, column 5"):
        read_cells(url, "soil_moisture", [3], [5])
    with pytest.raises(ValueError, match="lies outside"):
        read_tile(url, "soil_moisture", Tile(0, 0))
    with pytest.raises(ValueError, match="days 0 to 41"):
        read_tile(url, "soil_moisture", Tile(28, 60), (0, 41))
    with pytest.raises(ValueError, match="n_steps"):
        read_tile(url, "moisture", Tile(28, 60))


def test_a_part_of_a_cube_is_not_taken_for_the_whole(url):
    part = open_cube(url, chunks=None).isel(x=slice(10, 20))
    with pytest.raises(ValueError, match="not a part of it"):
        read_tile(part, "soil_moisture", Tile(28, 60))


def test_a_flipped_bit_is_noticed(tmp_path):
    values = np.random.default_rng(0).random((32, 2, *REGION.shape), dtype=np.float32)
    steps = np.zeros((32, *REGION.shape), np.uint8)
    url = make(tmp_path / "era5", template(), 32, {"soil_moisture": values, "n_steps": steps})
    open_cube(url)["soil_moisture"].compute()
    files = [path for path in Path(url, "chunks").iterdir() if path.stat().st_size > 10_000]
    assert files
    rng = np.random.default_rng(1)
    for position in rng.integers(0, files[0].stat().st_size, size=20):
        flip(files[0], int(position))
        with pytest.raises((ValueError, RuntimeError)):
            open_cube(url)["soil_moisture"].compute(scheduler="synchronous")
        flip(files[0], int(position))
    open_cube(url)["soil_moisture"].compute()


def flip(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << (position % 8)
    os.chmod(path, 0o644)  # noqa: PTH101
    path.write_bytes(content)


def test_what_is_not_there_is_said_plainly(url, tmp_path):
    (file := tmp_path / "july.nc").write_bytes(b"")
    with pytest.raises(NotACubeError, match="no cube is named"):
        open_cube("")
    with pytest.raises(NotACubeError, match="is a file"):
        open_cube(file)
    with pytest.raises(NotACubeError, match="no such folder"):
        open_cube(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotACubeError, match="holds no cube"):
        open_cube(tmp_path / "empty")
    with pytest.raises(CubeError, match="Branches: main"):
        open_cube(url, branch="work")
    with pytest.raises(CubeError, match="no snapshot ABC"):
        open_cube(url, snapshot="ABC")


def test_an_icechunk_repository_of_somebody_else_is_no_cube(tmp_path):
    path = str(tmp_path / "theirs")
    repository = icechunk.Repository.create(icechunk.local_filesystem_storage(path))
    session = repository.writable_session("main")
    zarr.create_group(session.store, attributes={"title": "theirs"})
    session.commit("theirs")
    with pytest.raises(NotACubeError, match="found title"):
        open_cube(path)


def test_urls_are_paths_or_object_stores():
    assert local_path("file:///data/cube") == Path("/data/cube")
    assert local_path("cubes/era5") == Path("cubes/era5")
    assert local_path("s3://bucket/prefix") is None
    with pytest.raises(CubeError, match="gs://bucket"):
        local_path("gs://bucket/prefix")


def test_the_published_cube_is_the_same_however_it_is_read(client, tmp_path):
    path = str(tmp_path / "era5")
    publish(
        path,
        template(),
        N_DAYS,
        write_block,
        jobs(),
        client=client,
        message="all",
        metadata={"stage": "ingest"},
    )
    whole = open_cube(path, chunks=None)["soil_moisture"].values
    for tile in REGION.tiles():
        rows, columns = REGION.local(tile)
        np.testing.assert_array_equal(
            read_tile(path, "soil_moisture", tile), whole[:, :, rows, columns]
        )
