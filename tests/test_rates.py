"""Rates of a machine: where they are kept, what is read back, how they are measured."""

import json
import os
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deepprofile import benchmark
from deepprofile.cluster import cores
from deepprofile.model.rolling import RollingSeries
from deepprofile.rates import (
    UNITS,
    WHOLE_MACHINE,
    Rates,
    RatesError,
    load_rates,
    rates_path,
    save_rates,
    this_machine,
)
from deepprofile.store import read_tile

seconds = st.floats(1e-15, 1e6)


@given(core=st.dictionaries(st.sampled_from(sorted(UNITS)), seconds), gpu=seconds)
def test_rates_come_back_as_they_were(tmp_path_factory, core, gpu):
    path = tmp_path_factory.mktemp("rates") / "deep" / "rates.json"
    rates = Rates(machine=this_machine(), core=core, gpu={"engine": gpu})
    save_rates(rates, path)
    assert load_rates(path) == rates
    assert [file.name for file in path.parent.iterdir()] == ["rates.json"]


def test_the_place_of_rates_follows_the_environment():
    assert rates_path({"DEEPPROFILE_RATES": "/a/b.json", "XDG_CONFIG_HOME": "/c"}) == Path(
        "/a/b.json"
    )
    assert rates_path({"XDG_CONFIG_HOME": "/c"}) == Path("/c/deepprofile/rates.json")
    assert rates_path({}) == Path.home() / ".config" / "deepprofile" / "rates.json"


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="not what this system offers")
def test_the_machine_is_what_the_system_says_it_is():
    here = this_machine()
    assert here.cores == cores() == len(os.sched_getaffinity(0))
    assert here.memory == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_a_system_without_a_list_of_allowed_cores_has_all_of_them(monkeypatch):
    """As macOS, which has no `os.sched_getaffinity` either, nor Windows `os.sysconf`."""
    monkeypatch.delattr(psutil.Process, "cpu_affinity", raising=False)
    for name in ("sched_getaffinity", "sysconf"):
        monkeypatch.delattr(os, name, raising=False)
    here = this_machine()
    assert here.cores == os.cpu_count()
    assert here.memory == psutil.virtual_memory().total


def test_missing_rates_say_how_to_measure_them(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.json.*deepprofile benchmark"):
        load_rates(tmp_path / "none.json")


GOOD = json.loads(Rates(machine=this_machine(), core={"engine": 1e-5}).model_dump_json())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{half", "Expecting"),
        ("[]", "the whole"),
        (json.dumps({**GOOD, "version": 0}), "version: found 0"),
        (json.dumps({**GOOD, "core": {"engine": -1.0}}), "core.engine: found -1.0"),
        (json.dumps({**GOOD, "core": {"engine": "fast"}}), "core.engine: found 'fast'"),
        (json.dumps({**GOOD, "speed": 3}), "speed"),
        (json.dumps({key: value for key, value in GOOD.items() if key != "machine"}), "machine"),
    ],
)
def test_damaged_or_old_rates_are_refused_by_name(tmp_path, content, words):
    path = tmp_path / "rates.json"
    path.write_text(content)
    with pytest.raises(RatesError) as error:
        load_rates(path)
    for word in (str(path), words, "deepprofile benchmark"):
        assert word in str(error.value)


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "rates.json"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RatesError, match=r"rates\.json"):
        load_rates(path)


def test_workers_measure_alone_and_all_at_once(client, tmp_path, monkeypatch):
    kinds = ("write",)
    monkeypatch.setattr(benchmark, "PER_CORE", {k: benchmark.PER_CORE[k] for k in kinds})
    monkeypatch.setattr(benchmark, "WITH_ALL_CORES", {})
    steps = []
    rates = benchmark.measure_on(client, str(tmp_path), lambda done, name: steps.append(done))
    assert set(rates.alone) == set(kinds)
    assert set(rates.core) == set(kinds)
    assert steps == list(range(len(kinds) + 1))
    assert rates.machine.cores == cores()
    assert ("engine" in rates.gpu) == torch.cuda.is_available()
    assert not list(tmp_path.iterdir())


def test_every_kind_of_work_has_a_unit_and_a_measurement():
    assert [*benchmark.PER_CORE, *benchmark.WITH_ALL_CORES] == list(UNITS)
    assert tuple(benchmark.WITH_ALL_CORES) == WHOLE_MACHINE


@pytest.mark.parametrize("kind", ["engine", "series", "bootstrap", "train"])
def test_kernels_are_measured_in_this_process_too(kind, monkeypatch):
    threads = torch.get_num_threads()
    for name, value in {"SECONDS": 0.0, "CELLS": 2, "STEPS": 2, "cores": lambda: 1}.items():
        monkeypatch.setattr(benchmark, name, value)
    try:
        assert {**benchmark.PER_CORE, **benchmark.WITH_ALL_CORES}[kind](None) > 0
    finally:
        torch.set_num_threads(threads)


def test_the_temporary_forcing_is_packed_about_as_well_as_real_forcing(tmp_path):
    values = benchmark.smooth_fields(39)
    with benchmark.temporary_cube(benchmark.forcing_template(), str(tmp_path)) as (url, write):
        write({"forcing": values})
        size = sum(file.stat().st_size for file in Path(url).rglob("*") if file.is_file())
        last = read_tile(url, "forcing", benchmark.TILE)[-len(values) :]
    np.testing.assert_allclose(last, values, rtol=2e-4)  # 12 bits of mantissa are kept
    # A shard of real forcing takes 3-6 MB of its 17.9 MB.
    assert 3e6 < size / benchmark.N_BLOCKS < 6e6


def test_the_engine_is_timed_by_itself_and_the_series_with_all_forcing_of_a_segment(monkeypatch):
    calls = []

    def note(name, function):
        return lambda *values: (calls.append(name), function(*values))[1]

    for name, value in {"SECONDS": 0.0, "CELLS": 2}.items():
        monkeypatch.setattr(benchmark, name, value)
    coefficients = note("engine", benchmark.sliding_coefficients)
    monkeypatch.setattr(benchmark, "sliding_coefficients", coefficients)
    monkeypatch.setattr(RollingSeries, "append", note("append", RollingSeries.append))
    threads = torch.get_num_threads()
    try:
        benchmark.engine_seconds()
    finally:
        torch.set_num_threads(threads)
    assert calls == ["engine"] * 2  # one call to compile, one to time
    calls.clear()
    benchmark.series_seconds()
    assert calls == ["append"] * 2 * 24  # 12 blocks of output and 359 days before them


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_the_engine_is_measured_on_the_gpu(monkeypatch):
    monkeypatch.setattr(benchmark, "SECONDS", 0.0)
    assert benchmark.gpu_seconds() > 0
