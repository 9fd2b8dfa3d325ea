"""The daily run: the same cube whatever way the granules come, one line, exit codes."""

import os
import re
import shutil
import sys
from contextlib import nullcontext
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from filelock import FileLock
from operator_support import Command, samples, scraped
from prediction_support import FIELDS, VARIABLES, network_of
from rich.console import Console

import deepprofile as dp
from deepprofile import cli, grid
from deepprofile.exit_codes import EXIT_CODES, Code
from deepprofile.model.flags import Flag
from deepprofile.model.network import DeepProfile
from deepprofile.operators import operation
from deepprofile.recipe import Period, ProductSource, RecipeError, load_recipe
from deepprofile.stages import Context, StageError, chain, daily
from deepprofile.stages.daily import run_daily
from deepprofile.store import history
from deepprofile.store.kinds import FEATURES
from deepprofile.synthetic import EarthConfig
from deepprofile.synthetic.flaws import Flaws
from deepprofile.synthetic.smap import make_smap
from deepprofile.synthetic.smap_files import granule_path, write_smap
from deepprofile.synthetic.truth import make_truth

ROWS, COLUMNS = (274, 280), (2176, 2182)
START, N_DAYS, WINDOW = date(2015, 3, 31), 72, 40
EARTH = EarthConfig(
    seed=3, start=START, n_days=N_DAYS, rows=ROWS, columns=COLUMNS, spin_up_days=5, flaws=False
)
BASE = range(62)
"""Days that are there before the first daily run; block 2 begins on day 64."""
STEPS = 2
"""Granules of a day; one is too few."""
ARRIVALS = (
    {62: 2, 63: 1},  # too few granules at the end of the series
    {64: 2},
    {65: 2, 66: 2, 67: 2, 69: 1},  # a day without any, and too few again
    {70: 2, 71: 2},
    {63: 2, 68: 2, 69: 2},  # late
)
"""Granules of each day that have arrived by each run."""


def day(index):
    return START + timedelta(days=index)


class World:
    """An archive to which granules come, and a root in which cubes grow."""

    def __init__(self, source, folder):
        self.source, self.folder = source, folder
        folder.mkdir(exist_ok=True)
        self.root, self.archive = folder / "root", folder / "archive"
        self.recipe_path = folder / "daily.yaml"
        self.recipe_path.unlink(missing_ok=True)  # of a copied world: a link to the other's
        self.write_recipe()

    def write_recipe(self, **changes):
        latitude, longitude = grid.latitudes(), grid.longitudes()
        document = {
            "name": "small",
            "root": str(self.root),
            "period": {"start": str(START)},
            "region": {
                "west": float(longitude[COLUMNS[0] + 1]),
                "east": float(longitude[COLUMNS[1] - 2]),
                "north": float(latitude[ROWS[0] + 1]),
                "south": float(latitude[ROWS[1] - 2]),
            },
            "products": {"smap_l4": {"url": str(self.archive)}},
            "terrain": {"urls": [str(self.source / "dem.nc")]},
            "ingest": {"min_fraction": STEPS / 8},
            "training": {"window": WINDOW},
            "predict": {"device": "cpu"},
            **changes,
        }
        self.recipe_path.write_text(yaml.safe_dump(document))
        return load_recipe(self.recipe_path)

    @property
    def recipe(self):
        return load_recipe(self.recipe_path)

    def arrive(self, steps):
        """Let the first granules of some days come: their number by day."""
        for index, n in steps.items():
            for step in range(8 * index, 8 * index + n):
                name = granule_path(EARTH, step)
                target = self.archive / name
                target.parent.mkdir(parents=True, exist_ok=True)
                if not target.exists():
                    os.link(self.source / "smap_l4" / name, target)

    def replace(self, index):
        """Let a newer version of the first granule of a day come, with other values."""
        other, own = (
            granule_path(EARTH, 8 * index + 1),
            granule_path(EARTH, 8 * index, "Vv9010_001"),
        )
        shutil.copy(self.source / "smap_l4" / other, self.archive / own)

    def run(self, client, asked=None, recipe=None):
        console = Console(quiet=True)
        return run_daily(recipe or self.recipe, asked, lambda: nullcontext(client), console)

    def cube(self, name):
        return dp.open_cube(f"{self.root}/cubes/{name}")

    def touched(self, url="coefficients"):
        """Blocks that the latest run wrote."""
        commit = history(f"{self.root}/cubes/{url}")[0]
        return {int(re.search(r"block (\d+)", name)[1]) for name in commit.metadata["done"]}

    def copy(self, folder):
        shutil.copytree(self.folder, folder, copy_function=os.link)
        for path in (folder / "root").rglob("*"):  # cubes of their own
            if path.is_file():
                content = path.read_bytes()
                path.unlink()
                path.write_bytes(content)
        return World(self.source, folder)


def values(line):
    return dict(part.split("=") for part in line.split(" | ")[1].split())


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Granules of all days, and the relief."""
    folder = tmp_path_factory.mktemp("source")
    truth = make_truth(EARTH)
    smap = make_smap(EARTH, truth)
    left_out = tuple(step for step in range(8 * N_DAYS) if step % 8 >= STEPS)
    flaws = Flaws(smap_missing=left_out)
    write_smap(smap, truth.domain, EARTH, flaws, folder / "smap_l4", lambda share: None)
    truth.domain.dem[["elevation"]].to_netcdf(folder / "dem.nc", engine="h5netcdf")
    return folder


def save_model(root):
    torch.manual_seed(0)
    config = network_of(VARIABLES, FEATURES, window=WINDOW, width=16, head_width=8)
    model = DeepProfile.from_config(config)
    fields = [field for field in FIELDS if field.layer is None]
    model.series_minimum.copy_(torch.tensor([field.valid_min for field in fields]))
    model.series_maximum.copy_(torch.tensor([field.valid_max for field in fields]))
    dp.save_model(model, f"{root}/model")


@pytest.fixture(scope="module")
def base(source, tmp_path_factory, client):
    """A world in which the days of BASE have been taken in by one run, and its report."""
    world = World(source, tmp_path_factory.mktemp("base") / "world")
    save_model(world.root)
    world.arrive(dict.fromkeys(BASE, STEPS))
    return world, world.run(client)


@pytest.fixture
def world(base, tmp_path):
    return base[0].copy(tmp_path / "world")


def bits(world):
    """All bits of forcing and profiles, and the days."""
    found = {}
    for name, arrays in (
        ("smap_l4", ("forcing", "soil_moisture", "n_steps", "time")),
        ("coefficients", ("coefficients", "flag", "time")),
    ):
        cube = world.cube(name)
        found |= {(name, array): cube[array].values for array in arrays}
    return {
        key: value.view(np.uint32) if value.dtype == np.float32 else value
        for key, value in found.items()
    }


def assert_same_bits(found, expected):
    for key, value in expected.items():
        np.testing.assert_array_equal(found[key], value, err_msg=str(key))


def test_days_one_by_one_and_a_catch_up_give_the_same_bits(base, tmp_path, client):
    daily_world, at_once = base[0].copy(tmp_path / "daily"), base[0].copy(tmp_path / "at once")
    lines, touched, flags = [], [], []

    def run():
        report = daily_world.run(client)
        assert report.code == Code.DONE
        lines.append(values(report.line))
        touched.append(daily_world.touched())
        flag = daily_world.cube("coefficients")["flag"][WINDOW - 1 - 32 :].values
        flags.append(set(np.unique(flag)) - {Flag.NOT_LAND})

    for steps in ARRIVALS:
        daily_world.arrive(steps)
        run()
    daily_world.replace(5)
    before = bits(daily_world)["coefficients", "coefficients"]
    run()
    assert [int(line["days_added"]) for line in lines] == [2, 1, 5, 2, 0, 0]
    assert [int(line["granules_new"]) for line in lines] == [3, 2, 7, 4, 0, 0]
    assert [int(line["granules_late"]) for line in lines] == [0, 0, 0, 0, 4, 0]
    assert [int(line["granules_replaced"]) for line in lines] == [0, 0, 0, 0, 0, 1]
    assert [int(line["granules_set_aside"]) for line in lines] == [0, 0, 0, 0, 0, 1]
    # The last day has a profile, unless a gap ends the series; filled as soon as a day follows.
    assert [float(line["valid"]) for line in lines] == [0, 1, 0, 1, 1, 1]
    gaps = {Flag.VALID, Flag.GAP_FILLED}
    ends = gaps | {Flag.MISSING_FORCING}
    assert flags == [
        {Flag.VALID, Flag.MISSING_FORCING},
        gaps,
        ends,
        gaps,
        {Flag.VALID},
        {Flag.VALID},
    ]
    # A gap at the end of a block is filled from the three days after it: 64, 65 and 66. Windows
    # of block 2 begin on day 25.
    assert touched == [{1}, {1, 2}, {1, 2}, {2}, {1, 2}, {1}]
    after = bits(daily_world)["coefficients", "coefficients"]
    changed = np.flatnonzero((after != before).any(axis=(1, 2, 3)))
    # The first full window ends on day 39, the last with day 5 on day 44.
    assert changed.tolist() == list(range(WINDOW - 1 - 32, 5 + WINDOW - 32))

    for steps in ARRIVALS:
        at_once.arrive(steps)
    at_once.replace(5)
    assert values(at_once.run(client).line)["days_added"] == "10"
    assert_same_bits(bits(at_once), bits(daily_world))


def test_the_line_says_what_changed(base):
    first = values(base[1].line)
    assert base[1].code == Code.DONE
    assert first["days_added"] == str(len(BASE) - 32)
    assert first["granules_new"] == str(STEPS * len(BASE))
    assert (first["tiles"], first["valid"]) == ("1", "1.0000")
    chunks = [base[0].root / "cubes" / name / "chunks" for name in ("smap_l4", "coefficients")]
    stored = sum(path.stat().st_size for folder in chunks for path in folder.iterdir())
    assert int(first["bytes"]) == pytest.approx(stored, rel=0.03)  # small chunks lie in manifests


def test_published_days_outlive_their_granules_and_the_relief(world, client):
    before = bits(world)
    shutil.rmtree(world.archive)
    world.arrive({61: 2, 62: 2})
    world.write_recipe(terrain={"urls": ["/nowhere/dem.nc"]})
    assert values(world.run(client).line)["days_added"] == "1"
    after = bits(world)
    for key, value in before.items():
        np.testing.assert_array_equal(after[key][: len(value)], value, err_msg=str(key))


def test_days_that_are_wanted(world, client):
    world.arrive({62: 2, 63: 2})
    report = world.run(client, day(62))
    line = values(report.line)
    assert (report.code, line["last"], line["steps"]) == (Code.DONE, str(day(62)), "2")
    with pytest.raises(StageError, match="in the future"):
        world.run(client, datetime.now(UTC).date() + timedelta(days=1))
    with pytest.raises(StageError, match="before the period's first day"):
        world.run(client, START - timedelta(days=1))
    fixed = world.recipe.model_copy(update={"period": Period(start=START, end=day(62))})
    with pytest.raises(StageError, match=r"after period\.end"):
        world.run(client, day(63), fixed)


def test_a_second_run_at_once_stops_before_anything(world):
    with FileLock(world.root / daily.LOCK):
        report = run_daily(world.recipe, None, lambda: pytest.fail("connected"), Console())
    assert report.code == Code.BUSY
    assert values(report.line) == {"status": "busy"}
    assert daily.LOCK in report.problem


def test_another_publication_leaves_the_rest_for_the_next_run(world, client):
    world.arrive({62: 2})
    before = history(f"{world.root}/cubes/coefficients")[0].snapshot_id
    with FileLock(world.root / "cubes" / "coefficients.lock"):
        report = world.run(client)
    line = values(report.line)
    assert (report.code, line["status"], line["snapshot"]) == (Code.BUSY, "busy", before)
    assert (line["granules_new"], line["days_added"]) == ("2", "0")
    assert values(world.run(client).line)["days_added"] == "1"


def test_what_fails_is_repeated_by_the_next_run(world, client):
    world.arrive({62: 2})
    chunks, elsewhere = world.root / "cubes/smap_l4/chunks", world.folder / "chunks"
    shutil.copytree(chunks, elsewhere)
    for path in chunks.iterdir():
        if path.stat().st_size > 20_000:  # shards of forcing
            path.unlink()
    report = world.run(client)
    line = values(report.line)
    assert (report.code, line["status"], line["days_added"]) == (Code.FAILED, "failed", "0")
    assert "cubes/smap_l4" in report.problem
    shutil.rmtree(chunks)
    assert world.run(client).code == Code.FAILED  # nothing can be read of the cube
    shutil.copytree(elsewhere, chunks)
    report = world.run(client)
    assert (report.code, values(report.line)["days_added"]) == (Code.DONE, "1")


@pytest.mark.parametrize(
    ("asked", "code", "said"), [(50, 0, ""), (64, 4, "not_yet: no granule of 2015-06-03")]
)
def test_the_command_prints_one_line(base, world, client, monkeypatch, capsys, asked, code, said):
    monkeypatch.setattr(operation, "connected", lambda *_: nullcontext(client))
    arguments = ["deepprofile", "daily", str(world.recipe_path), "--date", str(day(asked))]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == code
    out, err = capsys.readouterr()
    # An earlier day takes nothing away: a cube does not become shorter.
    assert re.fullmatch(r"small: nothing new, profiles up to 2015-05-31.* \| status=.*\n", out)
    line, first = values(out), values(base[1].line)
    assert line["status"] == ("not_yet" if code else "nothing")
    unchanged = ("last", "snapshot", "valid")
    assert [line[key] for key in unchanged] == [first[key] for key in unchanged]
    assert (line["bytes"], line["tiles"], line["days_added"]) == ("0", "0", "0")
    assert err.startswith(said)
    assert bool(err) == bool(said)


def test_operators_see_what_the_line_says(world, client, monkeypatch, capfd):
    """JSON lines and metrics of a run that takes in a day, and of one that comes too early."""
    # A scheduler without this is warned of.
    monkeypatch.setattr(client.cluster.scheduler, "no_workers_timeout", 600.0)
    world.arrive({62: 2})
    world.replace(62)  # the older of the two is set aside
    file, command = world.folder / "daily.prom", Command(monkeypatch, capfd)
    arguments = ["daily", world.recipe_path, "--cluster", client.scheduler.address]
    arguments += ["--metrics-file", file]
    command(*arguments)
    line = values(command.out)
    names, last = command.names(), command.events[-1]
    assert command.out.count("\n") == 1
    assert names[:3] == ["run started", "recipe read", "cluster connected"]
    stages = [(e["event"], e["stage"]) for e in command.events if e["event"].startswith("stage")]
    assert stages == [
        (f"stage {what}", name)
        for name in ("ingest", "predict")
        for what in ("started", "finished")
    ]
    assert (names.count("published"), names.count("set aside")) == (2, 1)
    assert (line["granules_set_aside"], line["days_added"]) == ("1", "1")
    assert command.of("published")[-1]["snapshot"] == line["snapshot"]
    (unused,) = command.of("set aside")
    assert Path(unused["file"]).is_relative_to(world.archive)
    assert (unused["product"], unused["level"]) == ("smap_l4", "warning")
    assert {key: str(last[key]) for key in ("status", "days_added", "bytes", "last")} == {
        key: line[key] for key in ("status", "days_added", "bytes", "last")
    }
    kept, found = samples(file.read_text()), scraped(client)
    assert kept["stage_set_aside", "small", "ingest"] == 1
    assert kept["bytes_written", "small"] == int(line["bytes"])
    assert f"{kept['profile_ratio', 'small']:.4f}" == line["valid"]
    moment = datetime.fromtimestamp(kept["last_day_timestamp_seconds", "small"], UTC)
    assert moment == datetime.fromisoformat(f"{line['last']}T00:00:00+00:00")
    success = kept["run_success_timestamp_seconds", "daily", "small"]
    for key in kept:  # the scheduler is told just before the command ends
        if key[0] not in {"run_seconds", "run_finished_timestamp_seconds"}:
            assert found[key] == pytest.approx(kept[key], abs=600 if "success" in key[0] else 0)

    command(*arguments, "--date", str(day(64)))
    assert (command.code, command.events[-1]["exit_code"]) == (4, 4)
    assert command.of("problem")[0]["status"] == "not_yet"
    assert "no granule of 2015-06-03" in command.of("problem")[0]["message"]
    later = samples(file.read_text())
    assert later["run_exit_code", "daily", "small"] == 4
    assert later["run_success_timestamp_seconds", "daily", "small"] == success


def test_a_silent_archive_is_no_wrong_setup(world, client, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "any")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nobody listens there
    sources = {"smap_l4": ProductSource(url="s3://archive/SPL4SMGP")}
    report = world.run(client, recipe=world.recipe.model_copy(update={"products": sources}))
    assert (report.code, values(report.line)) == (Code.FAILED, {"status": "failed"})
    assert "s3://archive" in report.problem


def test_a_missing_model_or_archive_is_an_error_of_the_user(world, monkeypatch, capsys):
    monkeypatch.setattr(operation, "connected", lambda *_: pytest.fail("connected"))
    monkeypatch.setattr(sys, "argv", ["deepprofile", "daily", str(world.recipe_path)])
    for gone, said in ((world.root / "model", "model"), (world.archive, "products.smap_l4.url")):
        shutil.rmtree(gone)
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        assert stopped.value.code == 2
        out, err = capsys.readouterr()
        assert not out
        assert said in err


def test_another_root_than_the_recipes(world, monkeypatch, capsys):
    monkeypatch.setattr(operation, "connected", lambda *_: pytest.fail("connected"))
    elsewhere = world.folder / "elsewhere"
    arguments = ["deepprofile", "daily", str(world.recipe_path), "--root", str(elsewhere)]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    assert f"{elsewhere}/model" in capsys.readouterr().err
    assert not elsewhere.exists()


def test_a_period_without_an_end_is_for_daily_runs(tmp_path):
    world = World(tmp_path, tmp_path / "world")
    recipe = world.recipe
    assert recipe.period.end == datetime.now(UTC).date() - timedelta(days=1)
    assert list(chain.plans(recipe)) == chain.select(recipe, None) == ["ingest", "predict"]
    with pytest.raises(StageError, match=r"period\.end is missing.*deepprofile daily"):
        chain.run(["ingest"], Context(recipe, None, Console()))
    end = {"start": str(START), "end": "2016-03-31"}
    with pytest.raises(RecipeError, match="not among products"):
        world.write_recipe(period=end)
    with pytest.raises(RecipeError, match="terrain: is missing"):
        world.write_recipe(period=end, terrain=None)
    with pytest.raises(RecipeError, match=r"period\.end: is missing"):
        world.write_recipe(synthetic={"seed": 1})


def test_exit_codes_are_documented(capsys):
    text = (Path(__file__).parent.parent / "docs" / "daily.md").read_text()
    rows = {int(n) for n in re.findall(r"^\| (\d) \|", text, re.MULTILINE)}
    assert rows == {int(code) for code in Code}
    assert all(f" {int(code)} " in EXIT_CODES for code in Code)
