"""Trainings that were stopped go on to the same bits, or say why they can't."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from deepprofile.model.checkpoints import CheckpointError, load_checkpoint, remove_checkpoints
from deepprofile.model.configuration import NetworkConfig, TrainingConfig
from deepprofile.model.io import fingerprint
from deepprofile.model.samples import Samples
from deepprofile.model.training import Checkpoints, TrainingDivergedError, train
from deepprofile.profile import Layer

LAYERS = (Layer("smap_l4", 0.0, 0.05), Layer("gldas", 0.4, 1.0))
NETWORK = NetworkConfig(
    n_variables=3, n_auxiliary=2, window=20, filters=(6, 4), pooling=(2, 5), width=8, head_width=4
)
CONFIG = TrainingConfig(
    epochs=5,
    average_last=2,
    batch_size=8,
    samples_per_epoch=40,
    validation_samples=16,
    statistics_batches=3,
    threads=1,
)
DIES = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from deepprofile import places
import test_model_checkpoints as tests
whole = places.write_bytes
def write(url, content):
    if str(url).endswith("epoch-0003.json"):
        os.kill(os.getpid(), signal.SIGKILL)
    whole(url, content)
places.write_bytes = write
tests.run(tests.world(), {url!r})
"""


class StoppedError(Exception):
    """Somebody stopped the training."""


def world() -> Samples:
    rng = np.random.default_rng(0)
    return Samples.from_arrays(
        rng.random((8, 3, 60), np.float32),
        rng.random((8, 2), np.float32),
        rng.random((8, 2, 60), np.float32),
        np.full((8, 2), 0.5, np.float32),
    )


@pytest.fixture
def samples() -> Samples:
    return world()


def run(samples, url=None, config=CONFIG, on_epoch=None, on_resume=None, settings=None):
    """Fingerprint and history without speeds of a training of cells 0-5, validated on 6-7."""
    trains = np.arange(8) < 6
    index, validation = samples.sample_index(20, trains), samples.sample_index(20, ~trains)
    checkpoints = url and Checkpoints(str(url), settings or {}, on_resume)
    model, history = train(
        samples, index, validation, LAYERS, config, NETWORK, on_epoch, None, checkpoints
    )
    return fingerprint(model), history.drop(columns="steps_per_second")


def stop_after(epoch):
    def on_epoch(records):
        if records[0].epoch == epoch:
            raise StoppedError

    return on_epoch


def stopped(samples, url, epoch, **options):
    with pytest.raises(StoppedError):
        run(samples, url, on_epoch=stop_after(epoch), **options)


def assert_same(found, expected):
    assert found[0] == expected[0]
    pd.testing.assert_frame_equal(found[1], expected[1], check_exact=True)


@pytest.fixture(scope="module")
def uninterrupted():
    return run(world())


@pytest.mark.parametrize("epoch", [1, 4, 5])
def test_a_stopped_training_goes_on_to_the_same_bits(samples, tmp_path, uninterrupted, epoch):
    stopped(samples, tmp_path / "checkpoint", epoch)
    torch.rand(3)
    done, told = [], []
    found = run(
        samples,
        tmp_path / "checkpoint",
        on_epoch=lambda records: done.append(records[0].epoch),
        on_resume=lambda *what: told.append(what),
    )
    assert_same(found, uninterrupted)
    assert done == list(range(epoch + 1, 6))
    assert told == [(epoch, [])]


def test_stopped_again_and_again_it_comes_to_the_same_bits(samples, tmp_path, uninterrupted):
    for epoch in range(1, 6):
        stopped(samples, tmp_path / "checkpoint", epoch)
    assert_same(run(samples, tmp_path / "checkpoint"), uninterrupted)


def test_a_process_that_is_killed_between_the_two_files_loses_one_epoch(tmp_path, uninterrupted):
    url = tmp_path / "checkpoint"
    script = DIES.format(tests=str(Path(__file__).parent), url=str(url))
    ended = subprocess.run([sys.executable, "-c", script], env={**os.environ}, check=False)
    assert ended.returncode == -signal.SIGKILL
    assert (url / "epoch-0003.safetensors").exists()
    assert load_checkpoint(str(url)).epoch == 2
    assert_same(run(world(), url), uninterrupted)


def test_in_a_remote_place_it_is_the_same(samples, uninterrupted):
    url = "memory://training/checkpoint"
    stopped(samples, url, 3)
    assert load_checkpoint(url).epoch == 3
    assert_same(run(samples, url), uninterrupted)
    remove_checkpoints(url)
    assert load_checkpoint(url) is None
    remove_checkpoints(url)  # nothing is there: nothing happens


def test_the_log_grows_epoch_by_epoch_and_two_checkpoints_are_kept(samples, tmp_path):
    seen = []

    def look(records):
        log = pd.read_csv(tmp_path / "history.csv")
        seen.append((log["epoch"].max(), len(log)))
        terms = ["total", "surface", "root", "negative", "smoothness"]
        assert log[["epoch", "split", *terms]].notna().all(axis=None)
        for record, row in zip(records, log.tail(2).to_dict("records"), strict=True):
            assert {name: getattr(record, name) for name in terms} == {n: row[n] for n in terms}

    run(samples, tmp_path, on_epoch=look)
    assert seen == [(1, 2), (2, 4), (3, 6), (4, 8), (5, 10)]
    names = sorted(path.name for path in tmp_path.iterdir())
    kept = [f"epoch-000{i}.{ending}" for i in (4, 5) for ending in ("json", "safetensors")]
    assert names == [*kept, "history.csv"]


def test_other_settings_are_refused_key_by_key(samples, tmp_path):
    stopped(samples, tmp_path, 2, settings={"sample.seed": 1})
    other = replace(CONFIG, learning_rate=0.5, batch_size=10)
    samples.target[2, 40, 0] += 0.01
    with pytest.raises(CheckpointError) as refusal:
        run(samples, tmp_path, other, settings={"sample.seed": 2})
    text = str(refusal.value)
    for words in (
        f"{tmp_path} holds epoch 2 of another training",
        "training.learning_rate: 0.001 in the checkpoint, 0.5 now",
        "training.batch_size: 8 in the checkpoint, 10 now",
        "sample.seed: 1 in the checkpoint, 2 now",
        "samples.target: ",
        f"remove the folder {tmp_path}",
    ):
        assert words in text
    for same in ("training.seed", "samples.series", "network", "threads"):
        assert same not in text
    assert load_checkpoint(str(tmp_path)).epoch == 2


def test_a_length_may_change_until_the_average_begins(samples, tmp_path):
    longer = replace(CONFIG, epochs=6)
    whole = run(samples, config=longer)
    stopped(samples, tmp_path / "early", 3)
    assert_same(run(samples, tmp_path / "early", longer), whole)
    stopped(samples, tmp_path / "late", 4)
    with pytest.raises(CheckpointError, match=r"training\.epochs: 5 in the checkpoint, 6 now"):
        run(samples, tmp_path / "late", longer)


def test_other_conditions_are_told_and_not_refused(samples, tmp_path, uninterrupted):
    stopped(samples, tmp_path, 3)
    file = tmp_path / "epoch-0003.json"
    content = json.loads(file.read_text())
    content["conditions"]["torch"] = "1.0"
    file.write_text(json.dumps(content))
    told = []
    found = run(samples, tmp_path, on_resume=lambda epoch, notes: told.extend(notes))
    assert_same(found, uninterrupted)
    assert told == [
        f'last bits may differ: torch: "1.0" in the checkpoint, "{torch.__version__}" now'
    ]


def test_a_damaged_checkpoint_is_set_aside_and_named(samples, tmp_path, uninterrupted):
    url, lost = tmp_path / "checkpoint", tmp_path / "lost"
    stopped(samples, url, 3)
    shutil.copytree(url, lost)
    newest = url / "epoch-0003.safetensors"
    content = bytearray(newest.read_bytes())
    content[-100] ^= 1  # among the tensors; the file stays readable
    newest.write_bytes(content)
    told = []
    found = run(samples, url, on_resume=lambda *what: told.append(what))
    assert_same(found, uninterrupted)
    ((epoch, notes),) = told
    assert epoch == 2
    assert len(notes) == 1 and "epoch-0003.json: its tensors are not those" in notes[0]
    for file in lost.glob("*.json"):
        file.write_text("{")
    with pytest.raises(CheckpointError, match=r"epoch-0003\.json.*epoch-0002\.json.*Remove the"):
        run(samples, lost)


def test_a_loss_that_is_not_finite_leaves_the_last_good_checkpoint(
    samples, tmp_path, uninterrupted
):
    def spoil(records):
        if records[0].epoch == 3:
            samples.weight[4] = float("nan")

    with pytest.raises(TrainingDivergedError, match=r"epoch 4, step \d.*cell 4 day"):
        run(samples, tmp_path, on_epoch=spoil)
    assert load_checkpoint(str(tmp_path)).epoch == 3
    assert_same(run(world(), tmp_path), uninterrupted)
