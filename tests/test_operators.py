"""What operators see: JSON lines, exit codes, signals."""

import json
import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import warnings
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import yaml
from operator_support import Command, samples, scraped
from prediction_support import TILE, write_inputs
from rich.console import Console

from deepprofile import cli, events, grid
from deepprofile.exit_codes import code_of
from deepprofile.operators.logs import JsonLogs, LogFormat, format_asked, json_lines
from deepprofile.operators.operation import operation
from deepprofile.operators.signals import Terminated
from deepprofile.products import PRODUCTS
from deepprofile.store import Region, history
from deepprofile.store.layout import BLOCK_DAYS

REGION = Region((TILE.row, TILE.row + 1), (TILE.column, TILE.column + 2))
CELLS = np.s_[8:10]  # rows and columns of the land in each tile
N_BLOCKS = 2
LONG = ("run", "daily", "experiment", "assess")


def write_recipe(folder, **changes):
    east, west = grid.longitudes()[[REGION.columns.stop - 2, REGION.columns.start + 1]]
    south, north = grid.latitudes()[[REGION.rows.stop - 2, REGION.rows.start + 1]]
    box = {"west": west, "south": south, "east": east, "north": north}
    document = {
        "name": "small",
        "root": str(folder / "root"),
        "period": {"start": "2015-03-31", "end": "2015-06-02"},
        "region": {side: float(value) for side, value in box.items()},
        "products": {name: {"url": str(folder / "granules")} for name in PRODUCTS},
        "terrain": {"urls": [str(folder / "dem.nc")]},
        "collocation": {"min_samples": 30},
        "training": {"window": 40},
        "predict": {"device": "cpu"},
        **changes,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def forcing(tile, block):
    values = np.zeros((BLOCK_DAYS, 39, 56, 64), np.float32)
    rng = np.random.default_rng([tile.column, block])
    values[:, :, CELLS, CELLS] = rng.random((BLOCK_DAYS, 39, 2, 2), np.float32)
    return values


@pytest.fixture
def recipe(tmp_path):
    """A recipe of two tiles with all that its stage predict needs."""
    land = np.zeros(REGION.shape, bool)
    land[CELLS, CELLS] = land[CELLS, 64:][:, CELLS] = True
    write_inputs(tmp_path / "root", REGION, N_BLOCKS, forcing, land, 40)
    return write_recipe(tmp_path)


@pytest.fixture
def command(monkeypatch, capfd):
    return Command(monkeypatch, capfd)


def a_shard_of_forcing(recipe):
    """A large file: it holds the forcing of one block of one of the two tiles."""
    files = (recipe.parent / "root/cubes/smap_l4/chunks").iterdir()
    return max(files, key=lambda path: path.stat().st_size)


def test_a_run_in_json_lines_and_metrics(recipe, client, command, monkeypatch):
    """First with a job that fails, then with all there is."""
    # A scheduler without this is warned of.
    monkeypatch.setattr(client.cluster.scheduler, "no_workers_timeout", 600.0)
    cube, file = recipe.parent / "root/cubes/coefficients", recipe.parent / "small.prom"
    arguments = ["run", recipe, "--stage", "predict", "--cluster", client.scheduler.address]
    arguments += ["--metrics-file", file]
    shard = a_shard_of_forcing(recipe)
    shard.rename(recipe.parent / "away")
    command(*arguments)

    assert command.code == 2
    assert command.names() == [
        *("run started", "recipe read", "cluster connected", "stage started", "job failed"),
        *("published", "progress", "stage stopped", "error", "run finished"),
    ]
    (commit,) = history(str(cube))[:1]
    (failed,), (published,) = command.of("job failed"), command.of("published")
    (noted,) = commit.metadata["failed"]
    assert (failed["key"], failed["error"]) == (noted["job"], noted["error"])
    assert "ShardError" in failed["error"]
    assert "write_profiles" in failed["traceback"]
    assert (published["snapshot"], published["pieces"]) == (commit.snapshot_id, 1)
    (progress,) = command.of("progress")
    assert (progress["done"], progress["total"]) == (2, 2)
    (error,), last = command.of("error"), command.events[-1]
    assert (error["error"], failed["key"] in error["message"]) == ("FailedJobsError", True)
    assert last["exit_code"] == 2
    for event in command.events[2:]:
        assert (event["recipe"], event["root"]) == ("small", str(recipe.parent / "root"))
        assert abs((datetime.now(UTC) - datetime.fromisoformat(event["time"])).days) == 0
        assert event["time"].endswith("Z")
    (stopped,) = command.of("stage stopped")
    assert (stopped["error"], stopped["reason"]) == (
        "FailedJobsError",
        error["message"].splitlines()[0],
    )
    staged = command.events[3:8]
    assert {event["stage"] for event in staged} == {"predict"}
    assert {event["level"] for event in command.of("job failed")} == {"error"}
    assert [event["time"] for event in command.events] == sorted(
        event["time"] for event in command.events
    )
    assert not command.out

    found = scraped(client)
    kept = samples(file.read_text())
    jobs = {name: found[f"stage_jobs{name}", "small", "predict"] for name in ("", "_done")}
    assert jobs == {"": 2, "_done": 1}
    assert found["stage_jobs_failed", "small", "predict"] == 1
    assert found["stage_pieces_published", "small", "predict"] == 1
    assert found["stage_running", "small", "predict"] == 0
    assert found["run_exit_code", "run", "small"] == kept["run_exit_code", "run", "small"] == 2
    assert ("run_success_timestamp_seconds", "run", "small") not in kept
    assert of_stages(found) == of_stages(kept)

    (recipe.parent / "away").rename(shard)
    command(*arguments)
    assert (command.code, command.of("job failed"), command.of("error")) == (0, [], [])
    (finished,) = command.of("stage finished")
    assert "land cell-days" in finished["summary"]
    found, kept = scraped(client), samples(file.read_text())
    assert of_stages(found) == of_stages(kept)
    for name, value in (("stage_jobs", 1), ("stage_jobs_done", 1), ("stage_jobs_failed", 0)):
        assert found[name, "small", "predict"] == value
    assert found["stage_seconds", "small", "predict"] == finished["seconds"]
    assert kept["run_success_timestamp_seconds", "run", "small"] > 0

    command(*arguments, form="text")
    title, dask, stage, summary = command.out.splitlines()
    assert (title, stage) == (f"small in {recipe.parent}/root", "predict")
    assert dask.startswith("Dask: 2 workers, 2 threads, ")
    assert summary.startswith("  every day has its profile in ")
    assert not command.err


def of_stages(found):
    return {key: value for key, value in found.items() if key[0].startswith("stage_")}


def test_errors_have_codes_and_records(command, tmp_path, monkeypatch):
    """A recipe that is wrong, a fault, Ctrl-C, a command line that is wrong."""
    wrong = write_recipe(tmp_path, period={"start": "2015-03-31", "end": "2015-02-01"})
    file = tmp_path / "m.prom"
    command("run", wrong, "--metrics-file", file)
    assert (command.code, command.names()) == (2, ["run started", "error", "run finished"])
    assert "period" in command.events[1]["message"]
    assert "traceback" not in command.events[1]
    assert samples(file.read_text())["run_exit_code", "run", "recipe"] == 2

    path = write_recipe(tmp_path)
    for raised, code in ((ZeroDivisionError("odd"), 1), (KeyboardInterrupt(), 130)):

        def fail(*_, error=raised):
            raise error

        monkeypatch.setattr("deepprofile.stages.chain.select", fail)
        command("run", path)
        assert (command.code, command.events[-1]["exit_code"]) == (code, code)
        told = command.of("error")
        if code == 1:
            assert (told[0]["error"], told[0]["message"]) == ("ZeroDivisionError", "odd")
            assert "in fail" in told[0]["traceback"]
        else:
            assert not told

    command("run", path, "--nonsense")
    assert (command.code, command.names()) == (2, ["error"])
    assert "--nonsense" in command.events[0]["message"]
    command("run", path, "--metrics-file", tmp_path / "nowhere/m.prom")
    assert (command.code, command.names()) == (2, ["error"])
    assert "nowhere/m.prom" in command.events[0]["message"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "recipe.yaml"], "what was published stays, and the same command goes on"),
        (
            ["benchmark", "--rates", "rates.json"],
            "the same command begins anew",
        ),
    ],
)
def test_who_is_interrupted_hears_what_is_kept(monkeypatch, capsys, tmp_path, arguments, said):
    def interrupt(_):
        raise KeyboardInterrupt

    write_recipe(tmp_path)
    (tmp_path / "granules").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("deepprofile.cluster.connecting.connect", interrupt)
    monkeypatch.setattr(sys, "argv", ["deepprofile", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 130
    assert said in capsys.readouterr().err
    assert not Path("rates.json").exists()


def test_metrics_that_cannot_be_written_make_no_run_a_bad_one(tmp_path, capfd):
    folder = tmp_path / "metrics"
    folder.mkdir()
    with operation("run", Path("r.yaml"), Console(quiet=True), folder / "m.prom"):
        folder.rmdir()
    assert f"warning: --metrics-file {folder}/m.prom: can't be written" in capfd.readouterr().err


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize(("end", "code"), [("bad news", 1), (3, 3), (None, 0)])
def test_whoever_ends_the_program_is_heard(command, monkeypatch, form, end, code):
    def leave(**_):
        raise SystemExit(end)

    monkeypatch.setattr(cli, "app", leave)
    command("run", form=form)
    assert command.code == code
    if form == "text":
        assert command.err == ("bad news\n" if code == 1 else "")
    else:
        told = [(one["event"], one["message"], one["exit_code"]) for one in command.events]
        assert told == ([("error", "bad news", 1)] if code == 1 else [])


def test_the_last_words_of_a_crash_are_not_lost():
    """They are no JSON: the process that would have wrapped them is gone."""
    code = (
        "import os, resource\n"
        "resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n"
        "from deepprofile.operators.logs import json_lines\n"
        "with json_lines():\n"
        "    os.abort()\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == -signal.SIGABRT
    assert "Fatal Python error: Aborted" in ended.stderr


def test_what_is_written_as_the_process_exits_is_no_line():
    """Such as by Dask, at the end of a cluster that was interrupted as it started."""
    code = (
        "import atexit, logging\n"
        "atexit.register(lambda: 1 / 0)\n"
        "atexit.register(logging.warning, 'late')\n"
        "from deepprofile import events\n"
        "from deepprofile.operators.logs import json_lines\n"
        "with json_lines():\n"
        "    events.emit('note')\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert [json.loads(line)["event"] for line in ended.stderr.splitlines()] == ["note"]


def test_what_breaks_as_a_signal_ends_a_run_counts_as_the_signal():
    for signalled, code in ((Terminated(), 143), (KeyboardInterrupt(), 130), (ValueError(), 2)):
        try:
            try:
                raise signalled
            finally:
                raise OSError("the cluster is slow to close")
        except OSError as error:
            assert code_of(error) == code


def test_faults_show_where_they_rose_in_text(command, tmp_path, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError

    monkeypatch.setattr("deepprofile.stages.chain.select", fail)
    with pytest.raises(ZeroDivisionError):  # Python ends with 1
        command("run", write_recipe(tmp_path), form="text")


@pytest.mark.parametrize("name", [*LONG, "verify", "gc", "plan"])
def test_help_tells_the_codes(capsys, monkeypatch, name):
    monkeypatch.setattr(sys, "argv", ["deepprofile", name, "--help"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "Exit codes: 0 " in text
    assert "130 interrupted" in text
    assert ("--log-format" in text) == ("--metrics-file" in text) == (name in LONG)


def test_whatever_is_written_becomes_a_json_object(capfd):
    """Warnings, Python's and Dask's logging, threads that end, output of other processes."""
    dask = logging.getLogger("distributed.worker")
    before = [(one, one.handlers[:], one.propagate) for one in (dask, logging.root)]
    with json_lines(), events.one_run(recipe="r", root="https://user:secret@host/a?key=1"):
        warnings.warn("odd values", UserWarning, stacklevel=1)
        dask.warning("a worker is %s", "slow")
        dask.info("nobody needs this")
        os.write(2, b"two lines of C,\n\xff no end of line")
        subprocess.run(
            [sys.executable, "-c", "import os; os.write(2, b'\\nchild {\\n')"], check=True
        )
        thread = threading.Thread(target=lambda: 1 / 0, name="third")
        thread.start()
        thread.join()
        events.emit("note", "ä\n{}", value=float("nan"), names=["a", Path("b")])
    found = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    by_event = {name: [e for e in found if e["event"] == name] for name in events_of(found)}
    (warning,) = by_event["warning"]
    assert ("UserWarning: odd values" in warning["message"], warning["level"]) == (True, "warning")
    slow, ended = by_event["log"]
    assert (slow["message"], slow["logger"]) == ("a worker is slow", "distributed.worker")
    assert (ended["error"], "third" in ended["message"]) == ("ZeroDivisionError", True)
    assert "1 / 0" in ended["traceback"]
    output = {one["message"] for one in by_event["output"]}
    assert output == {"two lines of C,", "\ufffd no end of line", "child {"}
    (note,) = by_event["note"]
    assert (note["message"], note["value"], note["names"]) == ("ä\n{}", None, ["a", "b"])
    assert {one["root"] for one in found} == {"https://***@host/a?***"}
    assert [(one, one.handlers, one.propagate) for one in (dask, logging.root)] == before


def events_of(found):
    return {one["event"] for one in found}


def test_workers_log_json_lines(capfd):
    """As in a worker process: with the run's fields, each line whole in a pipe that many share."""
    before = events.present_fields()
    with events.one_run(recipe="small"):
        sent = pickle.dumps(JsonLogs())
    plugin, worker = pickle.loads(sent), SimpleNamespace(address="tcp://w:1")
    plugin.setup(worker)
    logging.getLogger("distributed.worker").warning("x" * 9000)
    warnings.warn("odd", UserWarning, stacklevel=1)
    plugin.teardown(worker)
    lines = capfd.readouterr().err.splitlines()
    long, odd = map(json.loads, lines)
    assert max(map(len, lines)) < 4096
    assert (set(long["message"]), long["logger"]) == ({"x"}, "distributed.worker")
    assert (odd["recipe"], odd["worker"], odd["event"]) == ("small", "tcp://w:1", "warning")
    assert events.present_fields() == before


@pytest.mark.parametrize(
    ("arguments", "environment", "form"),
    [
        (["run", "r.yaml"], "", "text"),
        (["run", "r.yaml"], "json", "json"),
        (["run", "--log-format=json"], "text", "json"),
        (["run", "--log-format", "text"], "json", "text"),
        (["run", "--log-format"], "", "text"),
        (["run", "--log-format", "xml"], "json", "text"),
    ],
)
def test_the_command_line_outdoes_the_environment(arguments, environment, form):
    assert format_asked(arguments, {"DEEPPROFILE_LOG_FORMAT": environment}) == LogFormat(form)


class InterruptAt(logging.Handler):
    """A signal that comes while an event is being told; keeps the names of all."""

    def __init__(self, event):
        super().__init__()
        self.event, self.names = event, []

    def emit(self, record):
        self.names.append(record.event)
        if record.event == self.event:
            raise Terminated


@pytest.mark.parametrize("event", ["run started", "stage started", "stage finished"])
def test_whatever_has_started_ends_however_early_a_signal_comes(event):
    signal_comes, quiet = InterruptAt(event), Console(quiet=True)
    events.LOGGER.addHandler(signal_comes)
    try:
        with (
            pytest.raises(Terminated),
            operation("run", Path("small.yaml"), quiet),
            events.stage("predict"),
        ):
            pass
    finally:
        events.LOGGER.removeHandler(signal_comes)
    names = signal_comes.names
    assert names[-1] == "run finished"
    assert ("stage started" in names) == ("stage stopped" in names)


def test_sigterm_ends_a_run_in_order(tmp_path):
    """A real process with a worker of its own, whose job waits for what never comes."""
    (tmp_path / "granules").mkdir()
    os.mkfifo(tmp_path / "granules/SMAP_L4_SM_gph_20150331T013000_Vv8011_001.h5")
    (tmp_path / "dem.nc").touch()
    cluster, file = tmp_path / "one.yaml", tmp_path / "m.prom"
    cluster.write_text("kind: local\nworkers: 1\n")
    code = "from deepprofile.cli import main; main()"
    arguments = ["run", str(write_recipe(tmp_path)), "--stage", "ingest", "--cluster", str(cluster)]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments, "--metrics-file", str(file)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "DEEPPROFILE_LOG_FORMAT": "json"},
    )
    found = []
    for line in process.stderr:
        found.append(json.loads(line))
        if found[-1]["event"] == "stage started":
            break
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    found += [json.loads(line) for line in process.communicate(timeout=120)[1].splitlines()]
    assert process.returncode == 143
    names = [one["event"] for one in found]
    assert names[:2] == ["run started", "recipe read"]
    assert "cluster connected" in names
    assert "interrupted" in names
    (stopped,) = (one for one in found if one["event"] == "stage stopped")
    assert (stopped["error"], stopped["reason"]) == ("Terminated", "interrupted")
    assert (names[-1], found[-1]["exit_code"]) == ("run finished", 143)
    assert children
    assert not psutil.wait_procs(children, 60)[1]
    kept = samples(file.read_text())
    assert (kept["run_exit_code", "run", "small"], kept["stage_running", "small", "ingest"]) == (
        143,
        0,
    )
