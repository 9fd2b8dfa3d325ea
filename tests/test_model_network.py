"""The network, its configuration, limits and loss."""

import json

import numpy as np
import pytest
import torch

from deepprofile.model.configuration import NetworkConfig
from deepprofile.model.loss import DeepProfileLoss
from deepprofile.model.network import DeepProfile
from deepprofile.profile import Layer

LAYERS = (
    Layer("smap_l4", 0.0, 0.05),
    Layer("smap_l4", 0.0, 1.0),
    Layer("era5_land", 0.07, 0.28),
)


def plain_forward(model: DeepProfile, series: np.ndarray, auxiliary: np.ndarray) -> np.ndarray:
    """The network in evaluation mode, written out with loops over layers and heads."""
    state = {k: v.double().numpy() for k, v in model.state_dict().items()}

    def norm(x, name, axis):
        shape = [1] * x.ndim
        shape[axis] = -1
        mean, var, gain, shift = (
            state[f"{name}.{k}"].reshape(shape)
            for k in ("running_mean", "running_var", "weight", "bias")
        )
        return np.maximum((x - mean) / np.sqrt(var + 1e-5) * gain + shift, 0)

    def dense(x, name):
        return norm(x @ state[f"{name}.0.weight"].T + state[f"{name}.0.bias"], f"{name}.1", 1)

    x = (series - state["series_minimum"][:, None]) / (
        state["series_maximum"] - state["series_minimum"]
    )[:, None]
    a = (auxiliary - state["auxiliary_minimum"]) / (
        state["auxiliary_maximum"] - state["auxiliary_minimum"]
    )
    for i, pool in enumerate(model.config.pooling):
        kernel = state[f"extractor.{i}.0.weight"][:, :, 0]
        half = kernel.shape[2] // 2
        padded = np.pad(x, ((0, 0), (0, 0), (half, half)))
        out = [
            np.einsum("bck,ock->bo", padded[:, :, t : t + kernel.shape[2]], kernel)
            for t in range(x.shape[2])
        ]
        x = np.stack(out, 2) + state[f"extractor.{i}.0.bias"][:, None]
        x = norm(x, f"extractor.{i}.1", 1)
        x = np.stack([x[:, :, t : t + pool].mean(2) for t in range(0, x.shape[2], pool)], 2)
    f = np.concatenate([x.reshape(len(x), -1), a], 1)
    h3 = f
    for i in range(3):
        h3 = dense(h3, f"dense.first.{i}")
    h6 = np.concatenate([h3, f], 1)
    for i in range(3):
        h6 = dense(h6, f"dense.second.{i}")
    hidden = dense(np.concatenate([f, h3, h6], 1), "heads.entry")
    first = model.config.head_width
    second = [
        hidden[:, k * first : (k + 1) * first] @ state["heads.weight"][k] + state["heads.bias"][k]
        for k in range(model.config.n_coefficients)
    ]
    second = norm(np.concatenate(second, 1), "heads.norm", 1)
    width = model.config.width
    return np.stack(
        [
            second[:, k * width : (k + 1) * width] @ state["heads.weight_out"][k]
            + state["heads.bias_out"][k]
            for k in range(model.config.n_coefficients)
        ],
        1,
    )


def trained_looking(model: DeepProfile, seed: int = 0) -> DeepProfile:
    """A model whose statistics, limits and weights are all different from their defaults."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            noise = torch.rand(tensor.shape, generator=generator)
            if "running_var" in name or "maximum" in name:
                tensor.copy_(1 + noise)
            elif "running_mean" in name or "minimum" in name or "norm" in name:
                tensor.copy_(noise - 0.5)
            elif ".1." in name:
                tensor.copy_(noise + 0.5)
    return model.eval()


def test_number_of_parameters_is_the_papers():
    n = sum(p.numel() for p in DeepProfile().parameters())
    assert n == 272_946


@pytest.mark.parametrize(
    "options",
    [
        {},
        {
            "n_variables": 3,
            "n_auxiliary": 2,
            "window": 24,
            "filters": (4, 5),
            "pooling": (2, 3),
            "kernel_size": 3,
            "n_coefficients": 4,
            "width": 8,
            "head_width": 6,
        },
        {"n_variables": 2, "n_auxiliary": 0, "window": 10, "filters": (3,), "pooling": (1,)},
    ],
)
def test_forward_equals_the_network_written_out(options):
    torch.manual_seed(1)
    model = trained_looking(DeepProfile(**options))
    config = model.config
    rng = np.random.default_rng(2)
    series = rng.normal(size=(5, config.n_variables, config.window)).astype(np.float32)
    auxiliary = rng.normal(size=(5, config.n_auxiliary)).astype(np.float32)
    with torch.no_grad():
        got = model(torch.from_numpy(series), torch.from_numpy(auxiliary)).numpy()
    assert got.shape == (5, config.n_coefficients)
    np.testing.assert_allclose(got, plain_forward(model, series, auxiliary), rtol=2e-4, atol=2e-5)


def test_layout_of_the_window_in_memory_does_not_matter():
    model = trained_looking(DeepProfile())
    days_first = torch.rand(4, 360, 39)
    auxiliary = torch.rand(4, 6)
    with torch.no_grad():
        view = model(days_first.transpose(1, 2), auxiliary)
        copied = model(days_first.transpose(1, 2).contiguous(), auxiliary)
    torch.testing.assert_close(view, copied)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 361}, "multiple of 40"),
        ({"kernel_size": 4}, "odd"),
        ({"filters": (8, 8)}, "2 and 4 stages"),
        ({"pooling": (2, 2, 0, 5)}, "at least 1"),
        ({"n_variables": 0}, "n_variables is 0"),
        ({"variables": ("a", "b")}, "2 variables but n_variables is 39"),
        ({"feature_units": ("m",)}, "1 feature_units but n_auxiliary is 6"),
    ],
)
def test_impossible_networks_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DeepProfile(**options)


def test_wrong_input_shapes_are_named():
    model = DeepProfile(n_variables=2, window=40)
    with pytest.raises(ValueError, match=r"\(3, 40, 2\).*\(B, 2, 40\)"):
        model(torch.zeros(3, 40, 2), torch.zeros(3, 6))
    with pytest.raises(ValueError, match=r"auxiliary has shape \(3, 5\)"):
        model(torch.zeros(3, 2, 40), torch.zeros(3, 5))


def test_normalisation_reaches_0_and_1_and_goes_on_beyond():
    model = DeepProfile(n_variables=2, n_auxiliary=1, window=40)
    model.set_limits(
        (torch.tensor([270.0, 5.0]), torch.tensor([310.0, 5.0])),
        (torch.tensor([0.0]), torch.tensor([2.0])),
    )
    series = torch.tensor([[270.0, 310.0, 350.0], [5.0, 5.0, 7.0]])
    expected = torch.tensor([[0.0, 1.0, 2.0], [0.0, 0.0, 0.0]])  # the constant one is ignored
    torch.testing.assert_close(model.normalise_series(series), expected)
    torch.testing.assert_close(
        model.normalise_auxiliary(torch.tensor([[3.0]])), torch.tensor([[1.5]])
    )


def test_limits_must_be_finite_and_ordered():
    model = DeepProfile(n_variables=2, n_auxiliary=1, window=40)
    auxiliary = (torch.zeros(1), torch.ones(1))
    for low, high in (([0.0, 2.0], [1.0, 1.0]), ([0.0, float("nan")], [1.0, 1.0])):
        with pytest.raises(ValueError, match=r"series number \[1\]"):
            model.set_limits((torch.tensor(low), torch.tensor(high)), auxiliary)
    with pytest.raises(ValueError, match="expected \\(2,\\)"):
        model.set_limits(auxiliary, auxiliary)


def test_start_of_training_is_a_nearly_uniform_profile():
    torch.manual_seed(0)
    model = DeepProfile()
    model.initialise_heads(0.23)
    with torch.no_grad():
        out = model(torch.rand(64, 39, 360), torch.rand(64, 6))
    assert abs(float(out[:, 0].mean()) - 0.23) < 0.05
    assert float(out[:, 1:].abs().max()) < 0.3
    assert float((out.sum(1) < 0).float().mean()) < 0.3


def test_configuration_survives_json():
    config = NetworkConfig(
        n_variables=2,
        variables=("a", "b"),
        variable_units=("K", "Pa"),
        feature_units=("m",) * 6,
        layers=LAYERS,
        window=80,
    )
    again = NetworkConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config


def test_same_seed_same_start():
    def weights():
        torch.manual_seed(5)
        return DeepProfile().state_dict()

    first, second = weights(), weights()
    assert all(torch.equal(first[name], second[name]) for name in first)


# --- loss ---


def plain_loss(coefficients, target, weight, surface_layer, smoothness):
    """The four terms with loops, straight from their definition."""
    n_samples, n = coefficients.shape
    surface = root = negative = 0.0
    for b in range(n_samples):
        for j, layer in enumerate(LAYERS):
            if np.isnan(target[b, j]):
                continue
            mean = sum(
                coefficients[b, i]
                * (layer.bottom ** (i + 1) - layer.top ** (i + 1))
                / ((i + 1) * (layer.bottom - layer.top))
                for i in range(n)
            )
            if j == surface_layer:
                surface += (target[b, j] - mean) ** 2
            else:
                root += weight[b, j] * (target[b, j] - mean) ** 2
        negative += max(0.0, -sum(coefficients[b]))
    smooth = sum(i**2 * np.mean(coefficients[:, i] ** 2) for i in range(2, n))
    surface, root = surface / n_samples, root / n_samples
    return surface + root + negative + smoothness * smooth, surface, root, negative, smooth


@pytest.mark.parametrize("surface_layer", [0, 2])
@pytest.mark.parametrize("n_coefficients", [10, 3])
def test_loss_equals_plain_loops(surface_layer, n_coefficients):
    rng = np.random.default_rng(3)
    coefficients = rng.normal(size=(7, n_coefficients))
    target = rng.uniform(0, 0.5, size=(7, 3))
    target[rng.random((7, 3)) < 0.3] = np.nan
    target[4] = np.nan
    weight = rng.uniform(size=(7, 3))
    loss = DeepProfileLoss(LAYERS, surface_layer, 1e-3, n_coefficients).double()
    loss.matrix = loss.matrix.double()
    got = loss(*(torch.from_numpy(a) for a in (coefficients, target, weight)))
    expected = plain_loss(coefficients, target, weight, surface_layer, 1e-3)
    np.testing.assert_allclose([float(v) for v in got], expected, rtol=1e-5)


def test_a_missing_target_gives_no_gradient_and_no_nan():
    coefficients = torch.full((2, 10), 0.01, requires_grad=True)
    target = torch.tensor([[float("nan")] * 3, [0.2, float("nan"), 0.3]])
    terms = DeepProfileLoss(LAYERS, smoothness=0.0)(coefficients, target, torch.ones(2, 3))
    terms.total.backward()
    assert torch.isfinite(coefficients.grad).all()
    assert torch.equal(coefficients.grad[0], torch.zeros(10))
    assert coefficients.grad[1].abs().max() > 0


def test_a_profile_that_fits_has_no_loss():
    coefficients = torch.zeros(4, 10)
    coefficients[:, 0] = 0.3
    terms = DeepProfileLoss(LAYERS)(coefficients, torch.full((4, 3), 0.3), torch.ones(4, 3))
    assert float(terms.total) == pytest.approx(0.0, abs=1e-12)


def test_surface_layer_must_be_one_of_the_layers():
    with pytest.raises(ValueError, match="one of the 3 layers"):
        DeepProfileLoss(LAYERS, surface_layer=3)
