"""Which workers may predict, on which device, and what is said where there is none."""

import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from distributed import Client, Scheduler, SpecCluster, Worker, get_worker
from distributed.comm import CommClosedError
from fault_support import NO_DASHBOARD
from rich.console import Console

from deepprofile.cluster import LocalSpec
from deepprofile.recipe import Predict, load_recipe
from deepprofile.stages import Context, StageError, chain, train
from deepprofile.stages.context import Plan
from deepprofile.stages.devices import (
    Answer,
    able_workers,
    check_answers,
    on_gpus,
    settle,
    worker_devices,
)
from deepprofile.stages.segments import smallest_share
from deepprofile.store import JobError, Need, check_memory, run_jobs

DEMO = Path(__file__).parent.parent / "pipelines" / "demo.yaml"
GPU_CLUSTER = Path(__file__).parent.parent / "cluster" / "gpu.yaml"


def on_gpu(host, gpu):
    return Answer("cuda", host=host, gpu=gpu)


def by_address(answers):
    return {f"tcp://{i}": answer for i, answer in enumerate(answers)}


def judge(*answers, **asked):
    check_answers(Predict(**asked), by_address(answers))


SHARED = [on_gpu("a", "GPU-1")] * 3
APART = [on_gpu("a", "GPU-1"), on_gpu("a", "GPU-2")]
MIXED = [on_gpu("a", "GPU-1"), Answer("cpu", host="b")]
PROCESSORS = [Answer("cpu", host="a")] * 2


def test_processors_and_a_gpu_for_each_process_pass():
    judge(*[Answer("cpu", host="a")] * 4)
    judge(on_gpu("a", "GPU-1"), on_gpu("a", "GPU-2"), on_gpu("b", "GPU-1"), Answer("cpu", host="a"))


def test_processes_that_share_a_gpu_are_counted_and_shown_the_way_out():
    answers = [*[on_gpu("a", "GPU-1")] * 3, on_gpu("a", "GPU-2"), *[on_gpu("b", "GPU-3")] * 2]
    with pytest.raises(StageError) as refusal:
        judge(*answers)
    text = str(refusal.value)
    for words in ("3 the GPU GPU-1 of a", "2 the GPU GPU-3 of b", GPU_CLUSTER.name, "device: cpu"):
        assert words in text
    assert "GPU-2" not in text


def test_a_worker_that_can_not_is_named_first():
    answers = [on_gpu("a", "GPU-1"), on_gpu("a", "GPU-1"), Answer("", "no GPU")]
    with pytest.raises(StageError, match=r"device cuda .* 1 of 3 workers can't, .*//2: no GPU"):
        judge(*answers, device="cuda")


def test_the_cluster_that_is_advised_is_one_process_of_several_threads():
    spec = LocalSpec.model_validate(yaml.safe_load(GPU_CLUSTER.read_text()))
    assert spec.workers == 1
    assert spec.threads_per_worker > 1


@pytest.mark.parametrize(
    ("answers", "device"), [(PROCESSORS, "cpu"), (APART, "cuda"), (MIXED, "auto"), (SHARED, "cpu")]
)
def test_auto_becomes_what_all_workers_take(answers, device):
    assert settle(Predict(), by_address(answers))[0] == device
    assert settle(Predict(device="cpu"), by_address(PROCESSORS)) == ("cpu", "")


def test_auto_with_a_shared_gpu_says_why_it_is_the_processor_and_how_to_use_the_gpu():
    _, reason = settle(Predict(), by_address(SHARED))
    for words in ("3 the GPU GPU-1 of a", "processor", "cluster/gpu.yaml"):
        assert words in reason
    assert settle(Predict(), by_address(APART))[1] == ""


@pytest.mark.parametrize("asked", [{"device": "cuda"}, {"precision": "tf32"}])
def test_a_shared_gpu_is_refused_where_nothing_but_a_gpu_will_do(asked):
    with pytest.raises(StageError, match=r"processes share a GPU .*cluster/gpu\.yaml"):
        settle(Predict(**asked), by_address(SHARED))


def test_the_processor_does_not_hide_a_worker_that_can_not():
    with pytest.raises(StageError, match="1 of 4 workers can't"):
        settle(Predict(), by_address([*SHARED, Answer("", "no such precision")]))


def test_all_workers_follow_what_was_settled_before_the_first_stage(monkeypatch):
    """Three processes with one GPU, as `connect("local")` starts on such a machine."""
    seen = {}

    def stage(name):
        def run(context):
            seen[name] = context.recipe.predict.device
            return "seen"

        return SimpleNamespace(plan=lambda recipe: Plan(1, 0, 0, 0), run=run)

    def answer(_, device, precision, workers, on_error):
        return by_address(PROCESSORS if device == "cpu" else SHARED)

    workers = {address: {"memory_limit": 0, "nthreads": 1} for address in by_address(SHARED)}
    scheduler = SimpleNamespace(identity=lambda n_workers: {"workers": workers})
    client = SimpleNamespace(run=answer, scheduler=scheduler, sync=lambda f, **given: f(**given))
    context = Context(load_recipe(DEMO), client, Console(record=True, width=1000))
    monkeypatch.setattr(chain, "module_of", stage)
    chain.run(["train", "predict"], context)
    assert seen == {"train": "auto", "predict": "cpu"}
    text = context.console.export_text()
    assert text.index("predict: worker processes share a GPU (3 the GPU GPU-1 of a)") == 0
    assert "cluster/gpu.yaml" in text


def context_of(said):
    """Context of a cluster whose workers say that, or can't say anything."""

    def run(*_, on_error="raise", **__):
        errors = [found for found in said.values() if isinstance(found, Exception)]
        if errors and on_error == "raise":
            raise errors[0]
        return said

    workers = {address: {"memory_limit": 0, "nthreads": 1} for address in said}
    scheduler = SimpleNamespace(identity=lambda n_workers: {"workers": workers})
    client = SimpleNamespace(run=run, scheduler=scheduler, sync=lambda f, **given: f(**given))
    return Context(load_recipe(DEMO), client, Console(record=True))


def test_workers_that_leave_while_they_are_asked_do_not_count():
    gone = {"tcp://a": CommClosedError("closed"), "tcp://b": OSError("timed out")}
    context = context_of({**gone, "tcp://c": Answer("cpu", host="c")})
    assert worker_devices(context) == ["cpu"]
    device, able = able_workers(context)
    assert device == "cpu" and list(able) == ["tcp://c"]
    with pytest.raises(StageError, match="no workers yet"):
        worker_devices(context_of(gone))
    with pytest.raises(KeyError, match="other"):
        worker_devices(context_of({**gone, "tcp://c": KeyError("other")}))


@pytest.fixture(scope="module")
def mixed():
    """A worker that declares a GPU and two that don't; nobody looks whether it has one."""
    declared = {"nthreads": 2, "resources": {"GPU": 2}}
    workers = {name: {"cls": Worker, "options": {"nthreads": 1}} for name in ("b", "c")}
    workers["a"] = {"cls": Worker, "options": declared}
    quiet = {"dashboard_address": "127.0.0.1:0", "dashboard": False}
    scheduler = {"cls": Scheduler, "options": quiet}
    with SpecCluster(workers, scheduler, silence_logs=50) as cluster, Client(cluster) as client:
        yield client


@pytest.mark.parametrize(("device", "names"), [("cuda", {"a"}), ("cpu", {"a", "b", "c"})])
def test_jobs_for_a_gpu_run_where_one_is_declared(mixed, device, names):
    recipe = SimpleNamespace(predict=Predict(device=device))
    context = SimpleNamespace(recipe=recipe, client=mixed)
    jobs = [SimpleNamespace(key=str(i)) for i in range(24)]
    with on_gpus(context):
        done, failed = run_jobs(mixed, name_of_worker, jobs)
    assert not failed and {name for _, name in done} == names


def name_of_worker(job):
    time.sleep(0.02)
    return get_worker().name


def test_training_on_a_gpu_never_goes_to_a_worker_without_one(mixed, monkeypatch):
    """Also when the worker that was asked has gone meanwhile: another that declares one has it."""
    monkeypatch.setattr(train, "training_workers", lambda _: ("cuda", ["tcp://127.0.0.1:1"]))
    monkeypatch.setattr(train, "train_model", worker_that_trains)
    monkeypatch.setattr(train, "inputs_of", lambda *_: "")
    monkeypatch.setattr(train, "trained_on", lambda _: "another")
    monkeypatch.setattr(train, "refuse_other_model", lambda *_: None)
    context = Context(load_recipe(DEMO), mixed, Console(record=True))
    assert {train.run(context).partition(";")[0] for _ in range(6)} == {"a"}
    monkeypatch.setattr(train, "training_workers", lambda _: ("cpu", [""]))
    assert train.run(context)  # anywhere


def worker_that_trains(*_):
    return [get_worker().name]


def test_a_recipe_for_gpus_asks_only_workers_that_declare_one(mixed):
    context = Context(load_recipe(DEMO), mixed, Console(record=True))
    predict = Predict(device="cuda")
    recipe = context.recipe.model_copy(update={"predict": predict})
    with pytest.raises(StageError, match="1 of 1 workers can't"):
        worker_devices(replace(context, recipe=recipe))
    assert worker_devices(context) == ["cpu"]


@pytest.fixture(scope="module")
def empty():
    """A scheduler that no worker has joined yet."""
    with Client(n_workers=0, processes=False, **NO_DASHBOARD) as connected:
        yield connected


def test_a_cluster_without_workers_is_refused_by_every_check(empty):
    context = Context(load_recipe(DEMO), empty, Console(record=True))
    wait_or_start = r"no workers yet\. Wait until .* start some with `dask worker"
    with pytest.raises(StageError, match=wait_or_start):
        worker_devices(context)
    with pytest.raises(StageError, match=wait_or_start):
        smallest_share(empty, 0)
    with pytest.raises(JobError, match=f"collocate: .*{wait_or_start}"):
        check_memory(empty, [Need("collocate", 0)])
    for name in ("collocate", "predict"):
        with pytest.raises((StageError, JobError), match=wait_or_start):
            chain.run([name], context)
