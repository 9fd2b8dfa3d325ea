"""One training in two processes on Dask's workers: the same as in one, and what ends it."""

import copy
import os
import signal
from contextlib import contextmanager, suppress
from pathlib import Path

import dask
import numpy as np
import pandas as pd
import pytest
import torch
import torch.distributed as dist
from fault_support import wait_for
from pydantic import ValidationError
from rich.console import Console
from test_model_training import LAYERS, NETWORK, curves, split_index, world
from test_train_stage import arrays, context_of
from torch import nn

from deepprofile import events
from deepprofile.model import trainer
from deepprofile.model.batch_norm import SharedBatchNorm, share_statistics
from deepprofile.model.checkpoints import Checkpoints, load_checkpoint
from deepprofile.model.configuration import TrainingConfig
from deepprofile.model.io import load_model, read_description
from deepprofile.model.loss import DeepProfileLoss
from deepprofile.model.network import DeepProfile
from deepprofile.model.parallel import ALONE, DifferentProcessesError
from deepprofile.model.samples import Samples
from deepprofile.model.training import train
from deepprofile.operators.metrics import Summary, SummaryHandler, attached
from deepprofile.recipe import Training
from deepprofile.stages import Context, StageError
from deepprofile.stages import train as stage
from deepprofile.stages.devices import Answer, workers_apart
from deepprofile.stages.remote import run_on_worker
from deepprofile.stages.train_parallel import run_together
from deepprofile.store.jobs import workers_of

CONFIG = TrainingConfig(
    epochs=3,
    average_last=2,
    batch_size=16,
    samples_per_epoch=64,
    validation_samples=32,
    statistics_batches=3,
    threads=1,
)
EXACT = {"rtol": 1e-9, "atol": 1e-11}
"""For numbers of 8 bytes, each of which rounds at 1e-16: sums are made in another order."""
ROUNDED = {"rtol": 1e-4, "atol": 1e-6}
"""For terms of the loss in numbers of 4 bytes, before the first step has changed the network only.
Where a gradient is zero but for rounding, as that of a bias before a batch norm, Adam divides noise
by its own size, so from then on terms differ by more than rounding."""
N_CELLS, N_DAYS = 8, 100
COUNTS = ("", "_done", "_failed")


def together(client, function, *args, **options):
    """Run a function in both workers."""
    context = Context(None, client, Console(quiet=True))
    workers = sorted(workers_of(client))
    assert len(workers) == 2
    return run_together(context, "test", function, *args, workers=workers, device="cpu", **options)


@contextmanager
def eight_bytes():
    """Networks and losses that compute with 8 bytes, so that rounding can't hide a fault."""

    def loss(*args):
        return DeepProfileLoss(*args).double()

    torch.set_default_dtype(torch.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "DeepProfileLoss", loss)
        try:
            yield
        finally:
            torch.set_default_dtype(torch.float32)


def small_samples(seed=0):
    """Samples in numbers of 8 bytes; some targets are missing."""
    given = Samples.from_arrays(*world(N_CELLS, N_DAYS, seed))
    names = ("series", "auxiliary", "target", "weight")
    samples = Samples(*(getattr(given, name).double() for name in names))
    samples.target[:, ::7, 1] = float("nan")
    return samples


def as_arrays(tensors):
    return {name: tensor.detach().numpy().copy() for name, tensor in tensors.items()}


def rank_of(_, processes):
    return processes.rank


def divide(report, number):
    report(0.5, "half")
    return 1 // number


def test_long_tasks_count_as_jobs(client):
    """A training in one process, one that fails, one in two processes."""
    summary, context = Summary(), Context(None, client, Console(quiet=True))
    with attached(SummaryHandler(summary)):
        for name, task, expected in (
            ("one", lambda: run_on_worker(context, "test", divide, 1), [1, 1, 0]),
            ("fails", lambda: run_on_worker(context, "test", divide, 0), [1, 0, 1]),
            ("two", lambda: together(client, rank_of), [2, 2, 0]),
        ):
            with suppress(ZeroDivisionError), events.one_run(recipe="r"), events.stage(name):
                task()
            jobs = [summary.value(f"stage_jobs{what}", "r", name) for what in COUNTS]
            assert jobs == expected


def batch_norms(_, processes):
    """Greatest difference from torch's batch norm over the whole batch, by what and where."""
    torch.manual_seed(0)
    found = {}
    for shape, kind in (((8, 5, 1, 6), nn.BatchNorm2d), ((8, 5), nn.BatchNorm1d)):
        for momentum in (0.1, None):
            values = torch.randn(shape, dtype=torch.float64) * 3 + 50
            if len(shape) == 4:
                values = values.contiguous(memory_format=torch.channels_last)
            objective = torch.randn(shape, dtype=torch.float64)
            one = nn.Sequential(kind(5, momentum=momentum).double())
            nn.init.uniform_(one[0].weight)
            nn.init.uniform_(one[0].bias)
            shared = copy.deepcopy(one)
            share_statistics(shared, "cpu")
            assert isinstance(shared[0], SharedBatchNorm)
            for _ in range(2):
                expected = through(one, values, objective, ALONE)
                parts = through(shared, values, objective, processes)
            for name in ("weight", "bias"):
                dist.all_reduce(parts[name])
            for name, whole in expected.items():
                mine = processes.share(whole) if name in ("result", "gradient") else whole
                found[name, len(shape), momentum] = float((parts[name] - mine).abs().max())
    return found


def through(model, values, objective, processes):
    model.zero_grad()
    own = processes.share(values).clone().requires_grad_()
    result = model(own)
    (result * processes.share(objective)).sum().backward()
    named = {name: x.grad.clone() for name, x in model[0].named_parameters()}
    return {
        "result": result.detach(),
        "gradient": own.grad,
        **named,
        **dict(model[0].named_buffers()),
    }


def shaken(_, processes):
    """History and end of a training; the last bits of one process drift away in each epoch."""
    with eight_bytes():
        torch.manual_seed(CONFIG.seed)
        samples = small_samples()
        index = split_index(samples)
        state = trainer.Trainer(samples, *index, LAYERS, CONFIG, NETWORK, processes=processes)
        state.model.heads.bias_out.data[0] = -0.5  # profiles below zero: the term that is a sum
        for epoch in range(1, CONFIG.epochs + 1):
            if processes.rank == 1:
                state.model.dense.first[0][0].weight.data.mul_(1 + 1e-6)
            state.run_epoch(epoch)
        last = {f"last.{name}": x.clone() for name, x in state.model.state_dict().items()}
        model = state.finish()
        return curves(state.history()), as_arrays({**last, **model.state_dict()})


class StopError(Exception):
    """A training is stopped on purpose."""


def trained(_, processes, folder, stop=None, kill=None, seeds=(0, 0)):
    """Train from the checkpoints in a folder, perhaps up to an epoch; history and what is told."""
    told = []

    def on_epoch(records):
        if records[0].epoch == stop:
            if processes.rank == kill:
                wait_for(Path(folder) / "epoch-0001.json")
                os.kill(os.getpid(), signal.SIGKILL)
            if kill is None:
                raise StopError

    checkpoints = Checkpoints(folder, {}, lambda *found: told.append(found))
    with eight_bytes(), suppress(StopError):
        samples = small_samples(seeds[processes.rank])
        options = {"checkpoints": checkpoints, "processes": processes}
        index = split_index(samples)
        _, history = train(samples, *index, LAYERS, CONFIG, NETWORK, on_epoch, **options)
        return curves(history), told
    return None


def fails(_, processes):
    """Process 2 has an error of its own while the other waits for it."""
    if processes.rank == 1:
        raise OSError("no space left")
    dist.barrier()


def whoever(_, processes):
    return processes, torch.distributed.get_world_size()


def block(marker):
    Path(marker).with_suffix(".busy").touch()
    wait_for(Path(marker))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The training in one process, without a break."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    history, _ = trained(None, ALONE, str(tmp_path_factory.mktemp("alone")))
    torch.set_num_threads(before)
    return history


def assert_same(history, expected, tolerance=EXACT):
    pd.testing.assert_frame_equal(history, expected, check_exact=False, **tolerance)


def test_processes_know_one_another(client):
    first, size = together(client, whoever)
    assert (first.rank, first.size, first.neighbours, size) == (0, 2, 2, 2)


def test_batch_norm_of_two_processes_is_that_of_the_whole_batch(client):
    found = together(client, batch_norms)
    assert len(found) == 4 * 7
    assert max(found.values()) < 1e-10, found


def test_batch_norm_on_gpus_has_the_same_parameters_and_buffers():
    model = DeepProfile.from_config(NETWORK)
    names = {name: tuple(x.shape) for name, x in model.state_dict().items()}
    kinds = []
    for device in ("cpu", "cuda"):
        other = copy.deepcopy(model)
        share_statistics(other, device)
        assert {name: tuple(x.shape) for name, x in other.state_dict().items()} == names
        kinds.append([type(x) for x in other.modules() if hasattr(x, "running_mean")])
    plain = [x for x in model.modules() if hasattr(x, "running_mean")]
    assert kinds == [[SharedBatchNorm] * len(plain), [nn.SyncBatchNorm] * len(plain)]


def test_two_processes_train_as_one(client):
    history, state = together(client, shaken)
    expected_history, expected = shaken(None, ALONE)
    assert expected_history["negative"][0] > 1
    assert_same(history, expected_history)
    assert state.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(state[name], values, **EXACT, err_msg=name)


def test_one_process_goes_on_where_two_stopped(client, alone, tmp_path):
    assert together(client, trained, str(tmp_path), 1) is None
    assert load_checkpoint(str(tmp_path)).epoch == 1
    history, told = trained(None, ALONE, str(tmp_path))
    assert_same(history, alone)
    ((epoch, notes),) = told
    assert epoch == 1
    assert (
        "last bits may differ" in notes[0] and "processes: 2 in the checkpoint, 1 now" in notes[0]
    )


def test_two_processes_go_on_where_one_stopped(client, alone, tmp_path):
    trained(None, ALONE, str(tmp_path), 1)
    history, told = together(client, trained, str(tmp_path))
    assert_same(history, alone)
    assert told[0][0] == 1 and "processes: 1 in the checkpoint, 2 now" in told[0][1][0]
    assert load_checkpoint(str(tmp_path)).epoch == 3


@pytest.mark.parametrize("rank", [0, 1])
def test_a_worker_that_is_lost_ends_the_training_and_its_checkpoint_stays(client, tmp_path, rank):
    lost = f"process {rank + 1} of 2 is lost: its worker {sorted(workers_of(client))[rank]} has"
    with pytest.raises(StageError, match=lost):
        together(client, trained, str(tmp_path), 1, rank)
    assert load_checkpoint(str(tmp_path)).epoch == 1


def test_a_worker_that_is_lost_before_all_begin_is_named_too(client):
    gone, there = "tcp://127.0.0.1:1", min(workers_of(client))
    context = Context(None, client, Console(quiet=True))
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "100 ms"}),
        pytest.raises(StageError, match=f"process 1 of 2 is lost: its worker {gone} has"),
    ):
        run_together(context, "training", whoever, workers=[gone, there], device="cpu")


def test_an_error_of_one_process_is_the_error_of_all(client):
    with pytest.raises(OSError, match="no space left"):
        together(client, fails)


def test_processes_that_read_other_samples_are_told_apart(client, tmp_path):
    with pytest.raises(DifferentProcessesError, match=r"samples\.series: .* in process 2"):
        together(client, trained, str(tmp_path), None, None, (0, 1))


def test_a_busy_worker_is_named(client, tmp_path):
    busy = max(workers_of(client))
    marker = tmp_path / "go"
    blocker = client.submit(block, str(marker), workers=[busy], pure=False)
    wait_for(marker.with_suffix(".busy"))
    try:
        with pytest.raises(StageError, match=f"process 2 on {busy} of 2 did not begin within 1 s"):
            together(client, whoever, join_seconds=1)
    finally:
        marker.touch()
        blocker.result()


def test_the_stage_makes_the_same_model_with_two_processes(client, tmp_path):
    context = context_of(tmp_path, client, processes=2, samples_per_epoch=16)  # one step
    assert "steps/s on 2 x cpu" in stage.run(context)
    found = read_description(context.paths.model)["metadata"]
    assert (found["processes"], found["threads"]) == (2, max(1, stage.cores() // 2))
    names = sorted(path.name for path in Path(context.paths.model).iterdir())
    assert names == ["history.csv", "model.json", "model.safetensors"]
    assert all(torch.isfinite(x).all() for x in load_model(context.paths.model).parameters())
    other = str(tmp_path / "alone")
    stage.train_model(
        lambda *_: None, context.recipe, context.paths.samples, other, "", "cpu", threads=1
    )
    histories = [curves(stage.read_history(url)) for url in (context.paths.model, other)]
    assert_same(*(history[:1] for history in histories), ROUNDED)
    with_one = context_of(tmp_path, client, samples_per_epoch=16)
    assert "already" in stage.run(with_one)  # another number makes no other model


def test_a_loss_that_is_not_finite_stops_both_and_names_the_whole_batch(client, tmp_path):
    content = arrays()
    content["target"][0] *= np.float32(1e30)
    context = context_of(tmp_path, client, content, processes=2)
    with pytest.raises(StageError, match=r"epoch 1, step 1 .*All 16 samples of the batch"):
        stage.run(context)
    folder = Path(context.paths.model) / "checkpoint"
    assert len(pd.read_csv(folder / "diverged.csv")) == 16


def test_too_few_workers_are_refused(client, tmp_path):
    context = context_of(tmp_path, client, processes=4)
    with pytest.raises(StageError, match=r"training\.processes 4: there are 2 worker processes"):
        stage.run(context)


def test_workers_apart_share_no_process_and_no_gpu_and_are_on_all_machines():
    answers = {
        "a1": Answer("cuda", host="a", gpu="1", process=1),
        "a2": Answer("cuda", host="a", gpu="1", process=2),
        "a3": Answer("cuda", host="a", gpu="2", process=3),
        "b1": Answer("cuda", host="b", gpu="1", process=1),
        "c1": Answer("cpu", host="c", process=7),
        "c2": Answer("cpu", host="c", process=7),
    }
    assert workers_apart(answers) == ["a1", "b1", "c1", "a3"]


def test_a_batch_that_can_not_be_shared_equally_is_refused():
    with pytest.raises(ValidationError, match="batch_size 128 can't be shared equally by 3"):
        Training(processes=3)
