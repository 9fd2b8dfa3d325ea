import icechunk
import numpy as np
import pytest
from store_support import LAYERS, N_DAYS, REGION, moisture, template

from deepprofile.store import Block, Tile, WriteError, Writer, round_mantissa
from deepprofile.store.kinds import samples_template
from deepprofile.store.template import extend


@pytest.fixture
def session():
    return session_of(template(), N_DAYS)


def session_of(made, n_days):
    repository = icechunk.Repository.create(icechunk.in_memory_storage())
    session = repository.writable_session("main")
    extend(made.create(session.store), n_days)
    return session


def test_whole_shards_are_written_and_read_back(session):
    writer = Writer(session)
    values = moisture()
    writer.write("soil_moisture", {}, values)
    np.testing.assert_array_equal(writer._group["soil_moisture"][:], values)
    assert len(writer.written) == 2 * 2  # blocks x tiles


def test_shards_may_be_written_in_any_order_and_twice(session):
    writer = Writer(session)
    values = moisture()
    for _ in range(2):
        for block in (Block(1), Block(0)):
            for tile in reversed(list(REGION.tiles())):
                place = writer.select(tile, block)
                part = values[place["time"], :, place["y"], place["x"]]
                writer.write("soil_moisture", place, part)
    np.testing.assert_array_equal(writer._group["soil_moisture"][:], values)


def test_the_last_block_ends_with_the_time_axis(session):
    assert Writer(session).select(Tile(28, 60), Block(1)) == {
        "y": slice(0, 56),
        "x": slice(64, 80),
        "time": slice(32, 40),
    }


@pytest.mark.parametrize(
    "selection",
    [
        {"time": slice(0, 31)},
        {"time": slice(1, 32)},
        {"time": slice(32, 39)},
        {"x": slice(0, 63)},
        {"x": slice(16, 80)},
        {"y": slice(0, 55)},
        {"time": slice(0, 32, 2)},
        {"time": slice(32, 64)},
        {"time": slice(32, 32)},
        {"layer": slice(0, 1)},
    ],
    ids=str,
)
def test_writes_of_parts_of_shards_are_refused(session, selection):
    full = {"time": N_DAYS, "layer": len(LAYERS), "y": 56, "x": 80}
    shape = [
        len(range(*selection.get(dim, slice(0, size)).indices(max(size, 64))))
        for dim, size in full.items()
    ]
    writer = Writer(session)
    with pytest.raises(WriteError, match="whole shards"):
        writer.write("soil_moisture", selection, np.zeros(shape, dtype=np.float32))
    assert writer.written == []


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (np.zeros((32, 2, 56, 80), np.float32), r"\(32, 2, 56, 80\)"),
        (np.zeros((40, 2, 56, 80), np.float64), "float64"),
    ],
)
def test_other_shapes_and_types_are_refused(session, data, named):
    with pytest.raises(WriteError, match=named):
        Writer(session).write("soil_moisture", {}, data)


def test_infinite_values_are_refused(session):
    values = moisture()
    values[3, 0, 5, 70] = -np.inf
    with pytest.raises(WriteError, match=r"1 of \d+ values of shard \(0, 0, 0, 1\) are infinite"):
        Writer(session).write("soil_moisture", {}, values)


@pytest.mark.parametrize("place", [(Tile(28, 58), None), (None, Block(2))])
def test_places_outside_the_cube_are_named(session, place):
    with pytest.raises(WriteError, match="outside the cube"):
        Writer(session).select(*place)


def test_blocks_before_the_first_are_outside():
    writer = Writer(session_of(template(first_block=1), N_DAYS))
    assert writer.select(block=Block(1))["time"] == slice(0, 32)
    with pytest.raises(WriteError, match="outside"):
        writer.select(block=Block(0))


def test_an_unknown_array_or_dimension_is_named(session):
    with pytest.raises(KeyError, match="n_steps"):
        Writer(session).write("moisture", {}, moisture())
    with pytest.raises(WriteError, match="no dimension depth"):
        Writer(session).write("soil_moisture", {"depth": slice(0, 1)}, moisture())


def test_mantissas_are_rounded_to_the_bits_that_the_array_states(session):
    values = np.random.default_rng(0).random((N_DAYS, 2, 56, 80), dtype=np.float32)
    writer = Writer(session)
    writer.write("soil_moisture", {}, values)
    array = writer._group["soil_moisture"]
    np.testing.assert_array_equal(array[:], round_mantissa(values, array.attrs["keep_bits"]))
    assert not np.array_equal(array[:], values)


def test_shards_of_missing_values_exist(session):
    writer = Writer(session)
    writer.write("soil_moisture", {}, np.full((N_DAYS, 2, 56, 80), np.nan, np.float32))
    writer.write("n_steps", {}, np.zeros((N_DAYS, 56, 80), np.uint8))
    for name, position in writer.written:
        kind = session.chunk_type(f"/{name}", position)
        assert kind != icechunk.ChunkType.UNINITIALIZED


def test_samples_are_written_by_cell_over_all_days():
    cells = {
        "row": [5, 5, 9],
        "column": [7, 8, 7],
        "cell_class": ["core", "extra", "other"],
        "split": ["train", "train", "validation"],
    }
    session = session_of(samples_template(cells, {"rain": "kg m-2 s-1"}, LAYERS), 1500)
    writer = Writer(session)
    values = np.random.default_rng(0).random((2, 1, 1500), dtype=np.float32)
    writer.write("series", {"cell": slice(1, 3)}, values)
    np.testing.assert_array_equal(writer._group["series"][1:3], values)
    assert np.isnan(writer._group["series"][0]).all()
    with pytest.raises(WriteError, match="whole shards"):
        writer.write("series", {"cell": slice(0, 1), "time": slice(0, 1000)}, values[:1, :, :1000])
