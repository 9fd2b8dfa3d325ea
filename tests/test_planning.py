"""Plans: what the global recipe takes, how work becomes time, what the command prints."""

import re
import sys
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import psutil
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import deepprofile as dp
from deepprofile import benchmark, cli
from deepprofile.model.streaming import Stretch
from deepprofile.rates import Machine, Rates, load_rates, save_rates, this_machine
from deepprofile.recipe import Bounds, load_recipe
from deepprofile.stages import chain, predict
from deepprofile.stages.context import WORKER_MEMORY, Plan
from deepprofile.stages.extent import land_of
from deepprofile.stages.planning import render_plans, render_rates
from deepprofile.stages.segments import JobSize
from deepprofile.stages.sites import Estimate, Site, estimate, sides, with_gpus
from deepprofile.store.layout import Region

PIPELINES = sorted((Path(__file__).parent.parent / "pipelines").glob("*.yaml"))
GLOBAL = next(path for path in PIPELINES if path.stem == "global")
SECONDS = {
    "engine": 6e-6,
    "series": 7e-7,
    "read": 2e-9,
    "write": 8e-9,
    "collocate": 1e-8,
    "bootstrap": 1e-9,
    "train": 2e-4,
}
RATES = Rates(
    measured=datetime(2026, 1, 2, tzinfo=UTC),
    machine=Machine(processor="A processor", cores=2, memory=8 * 10**9, torch="2.13.0"),
    core=SECONDS,
)


def site(cores, engine=None):
    return Site("somewhere", "measured rates", cores, engine)


def work_plan(jobs, **work):
    return Plan(jobs, 0, 0, 0, work=work)


def printed(thing) -> str:
    console = Console(width=400)
    with console.capture() as capture:
        console.print(thing)
    return capture.get()


@pytest.fixture(scope="module")
def of_globe():
    return chain.plans(load_recipe(GLOBAL))


@pytest.mark.parametrize("path", PIPELINES, ids=lambda path: path.stem)
def test_every_committed_recipe_is_planned_without_data(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe(path)
    plans = chain.plans(recipe)
    assert list(plans) == chain.select(recipe, None)
    for plan in plans.values():
        assert plan.jobs > 0
        assert 0 <= plan.worker_memory < plan.worker_memory + plan.job_memory < 16e9
        assert all(units >= 0 for units in plan.work.values())
    text = printed(render_plans(recipe, plans, RATES, Path("rates.json")))
    assert all(name in text for name in plans)
    assert not list(tmp_path.iterdir())


def test_the_demo_earth_is_counted_with_its_own_cells():
    demo = load_recipe(next(path for path in PIPELINES if path.stem == "demo"))
    assert land_of(demo) == (4, 27 * 27)
    assert land_of(demo, Region((0, 1), (0, 1))) == (0, 0)
    with_land_everywhere = demo.model_copy(update={"synthetic": None})
    assert land_of(with_land_everywhere).cells > 4 * 27 * 27


# The numbers of the global recipe, by hand: 2015-03-31 to 2025-02-28 are 3,623 days in 114 blocks.
# 825 tiles of 3,584 cells hold land, 1,665,969 cells of it; 27 of the 29 rows of tiles have some.
DAYS, BLOCKS, TILES, TILE, LAND = 3623, 114, 825, 3584, 1_665_969


def test_the_global_ingest_reads_rows_with_land_and_writes_tiles_with_land(of_globe):
    plan = of_globe["ingest"]
    assert plan.jobs == BLOCKS * 27 * 3
    values_a_day = 41 * 8 + 3 * 24 + 3 * 8
    assert plan.bytes_read == BLOCKS * 32 * 27 * 56 * 3856 * values_a_day * 4
    # 41 + 3 + 3 fields of 4 bytes and the number of steps of three products
    assert plan.bytes_written == BLOCKS * 32 * TILES * TILE * (47 * 4 + 3)


def test_the_global_collocation_reads_eight_layers_once(of_globe):
    plan = of_globe["collocate"]
    assert plan.jobs == TILES
    assert plan.bytes_read == TILES * TILE * DAYS * 8 * 4
    # four variables of three products, the number of days, the flag; sums of 11 spans of 12 blocks
    # at most: ten sums and three numbers of days a cell
    estimates = TILES * TILE * (4 * 3 * 4 + 4 + 1)
    assert plan.bytes_written == estimates + LAND * 11 * (10 * 8 + 3 * 4)
    assert plan.work["collocate"] == LAND * DAYS
    assert plan.work["bootstrap"] == 300 * DAYS * 200


def test_the_global_training_has_about_the_papers_samples_a_cell(of_globe):
    samples = of_globe["train"].work["train"] / 50
    assert samples == 1250 * (DAYS - 359) // 128 * 128
    paper = 5.74e6 / 1742  # samples of a training cell
    assert samples / 1250 == pytest.approx(paper, rel=0.02)


def test_the_global_samples_and_comparison_touch_each_tile_at_most_once(of_globe):
    assert of_globe["sample"].jobs == of_globe["evaluate"].jobs == TILES
    assert of_globe["sample"].bytes_read == TILES * TILE * DAYS * (39 + 8) * 4
    assert of_globe["sample"].bytes_written == 2500 * DAYS * (39 + 8) * 4
    assert of_globe["evaluate"].bytes_read == TILES * TILE * DAYS * (8 + 10) * 4


def test_the_global_prediction_covers_every_land_cell_and_day_with_a_window(of_globe):
    plan = of_globe["predict"]
    assert plan.work["engine"] == plan.work["series"] == LAND * (DAYS - 359)
    # The first block with a profile is block 11; a year of halo is read again for every span.
    assert plan.bytes_written == TILES * TILE * (BLOCKS - 11) * 32 * (10 * 4 + 1)
    n_read = 0
    for first in range(11, BLOCKS, 24):
        stop = min(32 * min(first + 24, BLOCKS) + 3, DAYS)  # gaps of 3 days are filled
        n_read += len({day // 32 for day in range(max(32 * first - 359 - 3, 0), stop)})
    assert plan.bytes_read == TILES * TILE * n_read * 32 * 39 * 4


def test_a_worker_of_any_stage_takes_memory_before_its_jobs(of_globe):
    assert Plan(1, 0, 0, 0).worker_memory == WORKER_MEMORY
    for plan in of_globe.values():
        assert plan.worker_memory >= WORKER_MEMORY
    line = table_line(rendered(of_globe, None), "collocate")
    assert f"{(WORKER_MEMORY + of_globe['collocate'].job_memory) / 1e6:.0f} MB" in line


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="resident memory is read from Linux's /proc"
)
def test_the_memory_of_a_worker_is_that_of_a_fresh_one_with_the_stages(tmp_path):
    cluster = tmp_path / "one.yaml"
    cluster.write_text("workers: 1\n")
    with dp.connect(cluster) as fresh:
        measured = fresh.submit(resident_memory).result()
    assert 0.8 * WORKER_MEMORY < measured < 1.25 * WORKER_MEMORY


def resident_memory():
    for stage in chain.STAGES:
        chain.module_of(stage)
    return psutil.Process().memory_info().rss


def test_the_memory_of_the_prediction_is_given_with_the_segment_that_its_time_is_for(of_globe):
    plan = of_globe["predict"]
    size, stretch = JobSize(TILE, 39, 10), Stretch(range(11, 35), (0, DAYS), (362, 3), 32)
    assert plan.job_memory == size.memory(stretch, 1)
    assert plan.most_memory == size.memory(stretch, 12) > plan.job_memory
    line = table_line(rendered(of_globe, None), "predict")
    least, most = plan.worker_memory + plan.job_memory, plan.worker_memory + plan.most_memory
    assert f"{least / 1e6:.0f} MB to {most / 1e9:.1f} GB" in line
    assert "the time is for the larger" in line
    assert benchmark.DAYS == 12 * 32


def test_the_memory_of_a_prediction_of_one_block_is_one_number():
    recipe = load_recipe(GLOBAL)
    period = recipe.period.model_copy(update={"end": date(2016, 3, 31)})
    plan = predict.plan(recipe.model_copy(update={"period": period}))
    assert plan.most_memory == plan.job_memory
    text = rendered({"predict": plan}, None)
    assert " to " not in table_line(text, "MB")
    assert "larger" not in text


def test_a_region_without_land_takes_no_time():
    sea = Bounds(west=-18.5, east=-14.0, south=46.5, north=52.1)
    plans = chain.plans(load_recipe(GLOBAL).model_copy(update={"region": sea}))
    for name, plan in plans.items():
        assert plan.jobs == plan.bytes_read == plan.bytes_written == 0, name
        assert estimate(plan, RATES, site(2)) == Estimate(0.0)
    assert "not measured:" not in rendered(plans, RATES)


@given(
    units=st.floats(1, 1e12),
    rounds=st.integers(1, 50),
    cores=st.integers(1, 64),
    rate=st.floats(1e-12, 1e-3),
)
def test_time_is_work_times_rate_over_cores(units, rounds, cores, rate):
    rates = RATES.model_copy(update={"core": {"engine": rate}})
    found = estimate(work_plan(rounds * cores, engine=units), rates, site(cores))
    assert found.seconds == pytest.approx(units * rate / cores)
    assert found.bound == "engine"


@given(jobs=st.integers(1, 100), cores=st.integers(1, 64))
def test_no_core_is_of_use_without_a_job(jobs, cores):
    one_job = SECONDS["read"] * 1e9
    found = estimate(work_plan(jobs, read=jobs * 1e9), RATES, site(cores))
    assert found.seconds == pytest.approx(one_job * -(-jobs // cores))


def test_parts_of_a_core_add_up_and_the_longest_is_named():
    found = estimate(work_plan(4, engine=1e6, read=1e9, write=1e8), RATES, site(2))
    assert found.seconds == pytest.approx((6 + 2 + 0.8) / 2)
    assert found.bound == "engine"


@pytest.mark.parametrize(
    ("engine", "seconds", "bound"), [(1e-7, 1.75, "read"), (2e-6, 2.0, "engine")]
)
def test_a_gpu_predicts_while_cores_read_turn_and_write(engine, seconds, bound):
    plan = work_plan(4, engine=1e6, series=1e6, read=1e9, write=1e8)
    found = estimate(plan, RATES, site(2, engine))
    assert found.seconds == pytest.approx(seconds)
    assert found.bound == bound


@given(
    gpus=st.integers(1, 64),
    read=st.floats(1e6, 1e13),
    engine=st.floats(1.0, 1e10),
    jobs=st.integers(1, 10_000),
)
def test_the_slowest_of_cores_gpus_store_and_scheduler_decides(gpus, read, engine, jobs):
    plan = replace(work_plan(jobs, engine=engine, read=read), bytes_read=read, bytes_written=0)
    rounds = -(-jobs // (16 * gpus))
    expected = {
        "read": rounds * read / jobs * SECONDS["read"],
        "engine": engine * 0.6e6 / 8e12 / gpus,
        "store": read * 0.27 / min(1.25e9 * gpus, 5e9),
        "scheduler": jobs * 4e-3,
    }
    site = with_gpus(RATES, gpus)
    found = estimate(plan, RATES, site)
    assert found.seconds == pytest.approx(max(expected.values()))
    assert expected[found.bound] == pytest.approx(max(expected.values()))
    parts = {
        kind: value for side in sides(plan, RATES, site).values() for kind, value in side.items()
    }
    assert parts == pytest.approx(expected)


def test_work_without_a_rate_has_no_time():
    found = estimate(work_plan(4, decode=1e9, write=1.0), RATES, site(2))
    assert (found.seconds, found.missing) == (None, ("decode",))
    assert estimate(work_plan(4), RATES, site(2)).seconds is None
    assert estimate(work_plan(0), RATES, site(2)).seconds == 0
    assert estimate(work_plan(4, write=1e9, decode=0.0), RATES, site(2)).seconds is not None


def table_line(text: str, *words: str) -> str:
    return next(line for line in text.splitlines() if all(word in line for word in words))


def one_line(text: str) -> str:
    """Without the line breaks, whose places depend on the name of this machine's processor."""
    return " ".join(text.split())


def rendered(plans, rates) -> str:
    return printed(render_plans(load_recipe(GLOBAL), plans, rates, Path("rates.json")))


def test_times_of_other_machines_are_called_scaled_or_assumed(of_globe):
    here = this_machine()
    own = RATES.model_copy(update={"machine": here})
    text = rendered(of_globe, own)
    assert "measured rates" in table_line(text, "predict", "this machine")
    scaled = f"scaled from {here.cores} core"
    assert scaled in table_line(text, "predict", "node of 16 such cores")
    assert "assumed: 0.6 MFLOP a cell-day" in table_line(text, "predict", "1 GPU fed")
    assert "assumed" in table_line(text, "train", "node of 16")
    assert "not measured: decode" in table_line(text, "ingest")


def test_rates_of_another_machine_are_scaled_here_too(of_globe):
    text = rendered(of_globe, RATES)
    assert "scaled from 2 cores" in table_line(text, "predict", "this machine")
    assert "This machine is another one" in one_line(text)


def test_a_rate_that_an_older_file_has_not_is_named_with_the_way_to_get_it(of_globe, tmp_path):
    path = tmp_path / "rates.json"
    older = {kind: rate for kind, rate in SECONDS.items() if kind != "series"}
    save_rates(RATES.model_copy(update={"core": older}), path)
    text = rendered(of_globe, load_rates(path))
    assert "not measured: series" in table_line(text, "predict", "this machine")
    assert "no rate of series: run `deepprofile benchmark` again" in one_line(text)
    assert "min" in table_line(text, "collocate", "this machine")
    assert "no rate of" not in rendered(of_globe, RATES)


def test_where_cubes_lay_when_rates_were_measured_is_said(of_globe):
    text = one_line(rendered(of_globe, RATES))
    assert "read from pages in memory and written to a local disk" in text


def test_a_measured_gpu_is_named(of_globe):
    machine = RATES.machine.model_copy(update={"gpu": "GPU of the house"})
    rates = RATES.model_copy(update={"machine": machine, "gpu": {"engine": 1e-7}})
    line = table_line(rendered(of_globe, rates), "predict", "GPU of the house")
    assert "engine measured" in line
    assert "100 ns" in table_line(printed(render_rates(rates)), "engine")


def test_the_time_of_the_global_prediction_by_hand(of_globe):
    plan = replace(of_globe["predict"], jobs=1600)  # a multiple of both numbers of cores
    core = (
        LAND * (DAYS - 359) * SECONDS["engine"]
        + LAND * (DAYS - 359) * SECONDS["series"]
        + plan.work["read"] * SECONDS["read"]
        + plan.work["write"] * SECONDS["write"]
    )
    text = rendered({"predict": plan}, RATES)
    line = table_line(text, "predict", "node of 16")
    minutes = float(re.search(r"([\d.]+) min", line).group(1))
    assert minutes == pytest.approx(core / 16 / 60, abs=0.5)


@pytest.fixture
def run_command(monkeypatch, capsys, tmp_path):
    """Run the command line as a user does; returns exit code, output and errors."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    monkeypatch.delenv("DEEPPROFILE_RATES", raising=False)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["deepprofile", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        captured = capsys.readouterr()
        return end.value.code, captured.out, captured.err

    return run


def test_without_rates_the_command_says_how_to_get_them(run_command):
    code, out, _ = run_command("plan", GLOBAL)
    assert code == 0
    assert "825" in table_line(out, "collocate")
    assert "run `deepprofile benchmark` once" in out.replace("\n", " ")
    assert "time on" not in out


SLURM = {"kind": "slurm", "jobs": 1, "cores": 16, "memory": "78 GB"}
PODS = {"kind": "kubernetes", "image": "x", "workers": 1}
HOSTS = {"kind": "ssh", "hosts": ["a", "b"]}
LIMITS = [
    (SLURM, ["4.9 GB", "memory: 78 GB for 16 workers", "fewer cores"]),
    (SLURM | {"threads_per_worker": 8, "gpus": 1, "memory": "4.8 GB"}, ["memory: 4.8 GB)"]),
    (PODS | {"memory": "4800 MB"}, ["4.8 GB", "memory: 4800 MB", "fewer threads_per_worker"]),
    (HOSTS | {"memory_limit": "4.8 GB"}, ["memory_limit: 4.8 GB", "a larger memory_limit"]),
    ({"kind": "local", "memory_limit": "4.8 GB"}, ["memory_limit: 4.8 GB", "4.8 GB"]),
    ({"kind": "cuda", "memory_limit": "4.8 GB", "threads_per_worker": 1}, ["4.8 GB"]),
]


@pytest.mark.parametrize(("document", "words"), LIMITS, ids=lambda value: str(value)[:20])
def test_what_does_not_fit_into_the_workers_of_a_file_stops_before_they_start(
    run_command, of_globe, tmp_path, monkeypatch, document, words
):
    """The training of the globe needs 4.9 GB, whatever the threads."""
    monkeypatch.setattr("deepprofile.operators.operation.connected", pytest.fail)
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump(document))
    code, _, error = run_command("run", GLOBAL, "--cluster", path)
    text = error.replace("\n", " ")
    assert code == 2
    for word in [f"cluster {path}: a worker has", "train needs 4.9 GB", *words, "Nothing was"]:
        assert word in text
    jobs = document.get("threads_per_worker", 1)
    assert ("ingest needs" in text) == (jobs == 8)
    code, out, _ = run_command("plan", GLOBAL, "--cluster", path)
    assert code == 0
    assert "Does not fit: train needs 4.9 GB" in out and "on another cluster" in out
    fitting = table_line(out, "Stages that fit")
    assert "collocate" in fitting and "train" not in fitting.split("Stages that fit")[1]


@pytest.mark.parametrize(
    "document",
    [
        {"kind": "local"},
        {"kind": "local", "memory_limit": "0"},
        {"kind": "address", "address": "tcp://127.0.0.1:1"},
    ],
)
def test_a_file_that_does_not_say_what_memory_workers_have_is_no_hindrance(
    run_command, tmp_path, monkeypatch, document
):
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump(document))
    code, out, _ = run_command("plan", GLOBAL, "--cluster", path)
    assert code == 0
    assert "does not say how much memory" in out.replace("\n", " ")
    chain.check_cluster(load_recipe(GLOBAL), chain.STAGES[1:], str(path))


def test_processes_of_a_training_are_in_workers_of_their_own(tmp_path):
    recipe = load_recipe(GLOBAL)
    training = recipe.training.model_copy(update={"processes": 4})
    recipe = recipe.model_copy(update={"training": training})
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump(PODS | {"memory": "6 GB", "threads_per_worker": 4}))
    chain.check_cluster(recipe, ["train"], str(path))


def test_the_memory_of_a_gpus_libraries_counts_where_the_file_gives_one(run_command, tmp_path):
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump(PODS | {"memory": "3 GB", "gpus": 1}))
    _, out, _ = run_command("plan", GLOBAL, "--cluster", path)
    assert "Does not fit: predict needs 3.5 GB" in out
    path.write_text(yaml.safe_dump(PODS | {"memory": "3 GB"}))
    _, out, _ = run_command("plan", GLOBAL, "--cluster", path)
    assert "predict" in table_line(out, "Stages that fit")


def test_experiments_and_daily_runs_look_at_the_file_first_too(run_command, tmp_path, monkeypatch):
    monkeypatch.setattr("deepprofile.operators.operation.connected", pytest.fail)
    path = tmp_path / "cluster.yaml"
    path.write_text(yaml.safe_dump(PODS | {"memory": "1 GB"}))
    experiment = GLOBAL.parent / "experiments" / "training-size.yaml"
    code, _, error = run_command("experiment", experiment, "--cluster", path)
    assert code == 2 and "ingest needs" in error and "; training needs" in error
    daily = GLOBAL.with_name("daily.yaml")
    code, _, error = run_command("daily", daily, "--cluster", path)
    assert code == 2 and "ingest needs" in error and "train" not in error


def test_rates_are_found_by_option_and_by_environment(run_command, monkeypatch, tmp_path):
    path = tmp_path / "mine.json"
    save_rates(RATES, path)
    code, by_option, _ = run_command("plan", GLOBAL, "--rates", path)
    monkeypatch.setenv("DEEPPROFILE_RATES", str(path))
    _, by_environment, _ = run_command("plan", GLOBAL)
    assert code == 0
    assert by_option == by_environment
    assert "time on" in by_option


def test_rates_that_are_missing_or_damaged_end_with_code_2(run_command, tmp_path):
    code, _, error = run_command("plan", GLOBAL, "--rates", tmp_path / "none.json")
    assert code == 2
    assert "none.json" in error.replace("\n", "")
    broken = tmp_path / "settings" / "deepprofile" / "rates.json"
    broken.parent.mkdir(parents=True)
    broken.write_text("{")
    code, _, error = run_command("plan", GLOBAL)
    assert code == 2
    assert str(broken) in error.replace("\n", "")


def test_a_recipe_that_is_wrong_ends_with_code_2(run_command, tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(GLOBAL.read_text()), "trainin": {}}))
    code, out, error = run_command("plan", path)
    assert (code, out) == (2, "")
    assert "trainin" in error
    code, _, error = run_command("plan", tmp_path / "absent.yaml")
    assert code == 2
    assert "absent.yaml" in error
