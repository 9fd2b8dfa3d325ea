"""Which workers may predict: the judging of what they answer."""

from pathlib import Path

import pytest
import yaml

from deepprofile.cluster import LocalSpec
from deepprofile.recipe import Predict
from deepprofile.stages import StageError
from deepprofile.stages.devices import Answer, check_answers

GPU_CLUSTER = Path(__file__).parent.parent / "cluster" / "gpu.yaml"


def on_gpu(host, gpu):
    return Answer("cuda", host=host, gpu=gpu)


def judge(*answers, **asked):
    check_answers(Predict(**asked), {f"tcp://{i}": answer for i, answer in enumerate(answers)})


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
