"""Training on a small world that can be learnt: curve, average, seeds, faults."""

import numpy as np
import pandas as pd
import pytest
import torch

from deepprofile.model.configuration import NetworkConfig, TrainingConfig
from deepprofile.model.loss import DeepProfileLoss
from deepprofile.model.network import HEAD_SCALE, DeepProfile
from deepprofile.model.prediction import predict_windows
from deepprofile.model.samples import Samples
from deepprofile.model.training import Trainer, TrainingDivergedError, train
from deepprofile.profile import Layer, layer_matrix

LAYERS = (Layer("smap_l4", 0.0, 0.05), Layer("smap_l4", 0.0, 1.0), Layer("gldas", 0.4, 1.0))
BOUNDS = [(layer.top, layer.bottom) for layer in LAYERS]
NETWORK = NetworkConfig(
    n_variables=3,
    n_auxiliary=2,
    window=40,
    filters=(16, 8),
    pooling=(2, 5),
    width=32,
    head_width=16,
    layers=LAYERS,
)
FAST = TrainingConfig(
    epochs=2, batch_size=32, samples_per_epoch=160, validation_samples=64, threads=1
)


def world(n_cells=24, n_days=300, seed=0):
    """Rain wets a column; layers remember it for 5, 15 and 25 days, by cell."""
    rng = np.random.default_rng(seed)
    rain = rng.gamma(0.3, 1.0, size=(n_cells, n_days))
    memory = rng.uniform(0.8, 1.2, size=n_cells)
    target = np.zeros((n_cells, 3, n_days))
    for j, days in enumerate((5.0, 15.0, 25.0)):
        decay = np.exp(-1 / (days * memory))
        state = np.zeros(n_cells)
        for t in range(n_days):
            state = decay * state + (1 - decay) * rain[:, t]
            target[:, j, t] = 0.1 + 0.4 * state
    noise = rng.normal(size=(n_cells, n_days))
    constant = np.full((n_cells, n_days), 7.0)
    series = np.stack([rain, 280 + 10 * noise, constant], axis=1).astype(np.float32)
    auxiliary = np.stack([memory, rng.normal(size=n_cells)], 1).astype(np.float32)
    weight = np.tile(np.array([0.1, 0.5, 0.5], np.float32), (n_cells, 1))
    return series, auxiliary, target.astype(np.float32), weight


@pytest.fixture(autouse=True)
def _one_thread():
    """Threads that wait for one another on shared cores make these small steps slow."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def samples():
    return Samples.from_arrays(*world())


def split_index(samples):
    n_cells = len(samples.series)
    is_train = np.arange(n_cells) < n_cells * 3 // 4
    return samples.sample_index(40, is_train), samples.sample_index(40, ~is_train)


def run(samples, config=FAST, **options):
    return train(samples, *split_index(samples), LAYERS, config, NETWORK, **options)


def curves(history):
    return history.drop(columns="steps_per_second")


def test_the_world_is_learnt_and_held_out_cells_are_predicted():
    arrays = world(n_cells=40)
    samples = Samples.from_arrays(*arrays)
    config = TrainingConfig(epochs=8, batch_size=64, samples_per_epoch=3200, threads=1)
    model, history = run(samples, config)
    train_loss = history[history["split"] == "train"]["total"].to_numpy()
    assert train_loss[-1] < 0.2 * train_loss[0]
    held_out = slice(30, 40)
    series, auxiliary, target = (array[held_out] for array in arrays[:3])
    predicted = predict_windows(model, series, auxiliary) @ layer_matrix(BOUNDS)
    for j in range(3):
        truth = target[:, j, 39:]
        r = [np.corrcoef(a, b)[0, 1] for a, b in zip(predicted[..., j], truth, strict=True)]
        assert np.median(r) > 0.9, LAYERS[j].name


def test_same_seed_same_curve_bit_for_bit_and_another_seed_another(samples):
    first_model, first = run(samples)
    torch.rand(3)  # the state of torch's own generator must not matter
    second_model, second = run(samples)
    pd.testing.assert_frame_equal(curves(first), curves(second), check_exact=True)
    for a, b in zip(
        first_model.state_dict().values(), second_model.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b)
    _, other = run(samples, TrainingConfig(**{**vars(FAST), "seed": 1}))
    assert not np.allclose(curves(first)["total"], curves(other)["total"])


def test_training_leaves_torchs_generator_and_threads_alone(samples):
    torch.manual_seed(3)
    expected = torch.rand(4)
    threads = torch.get_num_threads()
    torch.manual_seed(3)
    run(samples)
    assert torch.equal(torch.rand(4), expected)
    assert torch.get_num_threads() == threads


def test_history_has_each_term_for_each_epoch_and_split(samples):
    seen = []
    steps = []
    _, history = run(
        samples, on_epoch=seen.append, on_step=lambda *position: steps.append(position)
    )
    assert list(history.columns) == [
        "epoch",
        "split",
        "total",
        "surface",
        "root",
        "negative",
        "smoothness",
        "steps_per_second",
    ]
    assert list(history["split"]) == [*["train", "validation"] * 2, "validation_average"]
    assert list(history["epoch"]) == [1, 1, 2, 2, 2]
    parts = history["surface"] + history["root"] + history["negative"]
    np.testing.assert_allclose(history["total"], parts + 2e-4 * history["smoothness"], rtol=1e-5)
    assert (history.query("split == 'train'")["steps_per_second"] > 0).all()
    assert [len(records) for records in seen] == [2, 2]
    assert steps == [(epoch, step, 5) for epoch in (1, 2) for step in range(1, 6)]


def test_validation_is_the_loss_of_the_model_in_evaluation_mode(samples):
    index, validation = split_index(samples)
    config = TrainingConfig(**{**vars(FAST), "epochs": 1})
    model, history = train(samples, index, validation, LAYERS, config, NETWORK)
    torch.manual_seed(config.seed)
    trainer = Trainer(samples, index, validation, LAYERS, config, NETWORK)
    loss = DeepProfileLoss(LAYERS)
    totals = []
    for part in trainer.validation.split(config.batch_size):
        batch = samples.gather(part, 40)
        with torch.no_grad():
            coefficients = model(batch.series, batch.auxiliary)
        totals.append(float(loss(coefficients, batch.target, batch.weight).total))
    assert len(totals) == 2
    assert history.iloc[-1]["total"] == pytest.approx(np.mean(totals), rel=1e-6)


def test_result_is_the_mean_of_the_last_epochs_with_its_own_statistics(samples):
    config = TrainingConfig(**{**vars(FAST), "epochs": 4, "average_last": 3})
    index, validation = split_index(samples)
    torch.manual_seed(config.seed)
    trainer = Trainer(samples, index, validation, LAYERS, config, NETWORK)
    states = []
    for epoch in range(1, 5):
        trainer.run_epoch(epoch)
        states.append({k: v.clone() for k, v in trainer.model.state_dict().items()})
    model = trainer.finish()
    for name, parameter in model.named_parameters():
        mean = torch.stack([state[name] for state in states[1:]]).mean(0)
        torch.testing.assert_close(parameter.detach(), mean, rtol=1e-5, atol=1e-7)
    norms = [m for m in model.modules() if hasattr(m, "running_mean")]
    n_batches = len(index) // 32
    assert all(m.momentum == 0.1 for m in norms)
    assert all(int(m.num_batches_tracked) == min(n_batches, 200) for m in norms)
    assert not torch.equal(norms[0].running_mean, trainer.model.extractor[0][1].running_mean)
    assert not model.training


def test_statistics_of_the_average_are_those_of_the_training_samples(samples):
    index, validation = split_index(samples)
    torch.manual_seed(0)
    trainer = Trainer(samples, index, validation, LAYERS, FAST, NETWORK)
    trainer.run_epoch(1)
    trainer.run_epoch(2)
    model = trainer.finish()
    batch = samples.gather(index, 40)
    with torch.no_grad():
        image = model.normalise_series(batch.series).unsqueeze(2)
        first = model.extractor[0][0](image)
    norm = model.extractor[0][1]
    torch.testing.assert_close(norm.running_mean, first.mean((0, 2, 3)), rtol=0.02, atol=0.005)


def test_limits_are_those_of_the_training_windows(samples):
    model, _ = run(samples)
    index, _ = split_index(samples)
    limits = samples.limits(index, 40)
    assert torch.equal(model.series_minimum, limits.series[0])
    assert torch.equal(model.series_maximum, limits.series[1])
    assert model.series_minimum[2] == model.series_maximum[2] == 7.0  # the constant variable
    assert model.config.layers == LAYERS


def test_a_bad_input_stops_training_and_is_named(samples):
    weight = samples.weight.clone()
    weight[5, 1] = float("nan")
    bad = Samples(samples.series, samples.auxiliary, samples.target, weight)
    with pytest.raises(TrainingDivergedError, match=r"epoch 1, step \d+.*cell 5 day \d+ \("):
        run(bad, TrainingConfig(**{**vars(FAST), "samples_per_epoch": None}))


def test_a_diverging_training_names_its_samples(samples):
    target = torch.full_like(samples.target, 1e30)
    bad = Samples(samples.series, samples.auxiliary, target, samples.weight)
    with pytest.raises(TrainingDivergedError, match="all inputs of the batch are finite"):
        run(bad)


def test_a_gradient_that_is_not_finite_stops_training_before_it_spoils_the_network(samples):
    index, validation = split_index(samples)
    trainer = Trainer(samples, index, validation, LAYERS, FAST, NETWORK)
    trainer.model.heads.bias_out.register_hook(lambda gradient: gradient + float("inf"))
    before = {name: x.clone() for name, x in trainer.model.named_parameters()}
    with pytest.raises(TrainingDivergedError, match=r"surface \d.*gradient inf") as error:
        trainer.run_epoch(1)
    assert len(error.value.samples) == FAST.batch_size
    assert all(torch.equal(x, before[name]) for name, x in trainer.model.named_parameters())


def test_a_validation_that_is_not_finite_stops_training_and_is_named(samples):
    weight = samples.weight.clone()
    weight[20, 1] = float("nan")  # a cell that validates
    bad = Samples(samples.series, samples.auxiliary, samples.target, weight)
    index, validation = split_index(samples)
    only = validation[validation[:, 0] == 20]
    with pytest.raises(TrainingDivergedError, match=r"validation after epoch 1 .*cell 20 day"):
        train(bad, index, only, LAYERS, FAST, NETWORK)


def test_too_few_samples_are_refused(samples):
    index, validation = split_index(samples)
    with pytest.raises(ValueError, match="has 10 samples, fewer than one batch of 32"):
        train(samples, index[:10], validation, LAYERS, FAST, NETWORK)
    with pytest.raises(ValueError, match="validation has 10 samples"):
        train(samples, index, validation[:10], LAYERS, FAST, NETWORK)


def test_samples_that_do_not_fit_the_network_are_refused(samples):
    with pytest.raises(ValueError, match="3 variables, 2 auxiliary features and 3 target"):
        train(samples, *split_index(samples), LAYERS[:2], FAST, NETWORK)


def test_validation_may_be_empty(samples):
    index, validation = split_index(samples)
    _, history = train(samples, index, validation[:0], LAYERS, FAST, NETWORK)
    assert list(history["split"]) == ["train", "train"]


@pytest.mark.parametrize(
    ("option", "value"),
    [("epochs", 0), ("batch_size", 1), ("learning_rate", 0.0), ("threads", 0)],
)
def test_settings_out_of_range_are_refused(option, value):
    with pytest.raises(ValueError, match=option):
        TrainingConfig(**{option: value})


def test_network_of_the_paper_is_the_default():
    arrays = (
        np.random.default_rng(0).random((2, 39, 400), np.float32),
        np.random.default_rng(1).random((2, 6), np.float32),
        np.full((2, 3, 400), 0.2, np.float32),
        np.ones((2, 3), np.float32),
    )
    samples = Samples.from_arrays(*arrays)
    index = samples.sample_index(360)
    config = TrainingConfig(epochs=1, batch_size=16, samples_per_epoch=32, threads=1)
    model, _ = train(samples, index, index[:0], LAYERS, config)
    assert isinstance(model, DeepProfile)
    assert sum(p.numel() for p in model.parameters()) == 272_946


@pytest.mark.parametrize("small", [True, False])
def test_training_starts_from_small_heads_unless_told_not_to(small):
    samples = Samples.from_arrays(*world())
    index = samples.sample_index(NETWORK.window)
    config = TrainingConfig(**{**vars(FAST), "small_heads": small})
    torch.manual_seed(0)
    trainer = Trainer(samples, index, index, LAYERS, config, NETWORK)
    torch.manual_seed(0)
    plain = DeepProfile.from_config(NETWORK)
    heads, own = trainer.model.heads, plain.heads
    assert torch.equal(heads.weight_out, own.weight_out * (HEAD_SCALE if small else 1))
    assert torch.equal(heads.bias_out[1:], torch.zeros(9) if small else own.bias_out[1:])


def test_losses_of_two_seeds_are_of_the_same_validation_samples(samples):
    index, validation = split_index(samples)
    of_seeds = [
        Trainer(samples, index, validation, LAYERS, config, NETWORK).validation
        for config in (FAST, TrainingConfig(**{**vars(FAST), "seed": 5}))
    ]
    assert torch.equal(*of_seeds)
    assert len(of_seeds[0]) == 64 < len(validation)
