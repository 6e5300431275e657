"""The linear probe against scikit-learn and by hand."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from gestalt.errors import DataError, ShapeError
from gestalt.evaluation.linear_probe import LinearProbe, fit_linear_probe, linear_quality


def blobs(n: int = 400, n_classes: int = 4, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(n_classes, (n,), generator=generator)
    centres = 1.2 * torch.randn(n_classes, 6, generator=torch.Generator().manual_seed(99))
    return centres[labels] + torch.randn(n, 6, generator=generator), labels


def test_it_is_the_logistic_regression_of_scikit_learn() -> None:
    vectors, labels = blobs()
    vectors = vectors * torch.tensor([1.0, 10.0, 0.1, 1.0, 3.0, 1.0])
    probe = fit_linear_probe(vectors.double(), labels, 4, penalty=0.01)
    # Standardised with the deviation of n - 1, as ours.
    scaler = StandardScaler().fit(vectors.numpy())
    scaler.scale_ = vectors.double().std(0).numpy()
    reference = LogisticRegression(C=1 / (len(labels) * 0.01), tol=1e-8, max_iter=1000)
    reference.fit(scaler.transform(vectors.numpy()), labels.numpy())
    ours = torch.softmax(vectors.double() @ probe.weight.T + probe.bias, 1).numpy()
    theirs = reference.predict_proba(scaler.transform(vectors.numpy()))
    np.testing.assert_allclose(ours, theirs, atol=2e-4)


def test_separate_blobs_are_told_apart_on_new_vectors() -> None:
    vectors, labels = blobs(n=600)
    new, truth = blobs(n=600, seed=1)
    far = fit_linear_probe(6 * vectors, labels, 4)
    quality = linear_quality(far, 6 * new, truth)
    assert quality.accuracy > 80
    shuffled = fit_linear_probe(
        vectors, labels[torch.randperm(600, generator=torch.Generator().manual_seed(3))], 4
    )
    assert linear_quality(shuffled, new, truth).accuracy < 45


def test_quality_is_counted_as_by_hand() -> None:
    probe = LinearProbe(torch.eye(3), torch.zeros(3))
    vectors = torch.eye(3)[[0, 0, 1, 1, 1]]
    quality = linear_quality(probe, vectors, torch.tensor([0, 1, 1, 1, 255]))
    assert quality.accuracy == pytest.approx(75)
    assert quality.iou[:2].tolist() == pytest.approx([50, 100 * 2 / 3])
    assert np.isnan(quality.iou[2])
    assert quality.mean_iou == pytest.approx((50 + 200 / 3) / 2)


def test_void_and_absent_classes_change_nothing() -> None:
    vectors, labels = blobs()
    plain = fit_linear_probe(vectors, labels, 4)
    noise = torch.cat([vectors, 100 * torch.ones(50, 6)])
    with_void = fit_linear_probe(noise, torch.cat([labels, torch.full((50,), 255)]), 9)
    assert torch.equal(plain.predict(vectors), with_void.predict(vectors))
    assert torch.isinf(with_void.bias[4:]).all()


def test_a_channel_that_never_varies_is_harmless() -> None:
    vectors, labels = blobs()
    probe = fit_linear_probe(torch.cat([vectors, torch.ones(len(vectors), 1)], 1), labels, 4)
    assert torch.isfinite(probe.weight).all()


def test_bad_input_is_named() -> None:
    vectors, labels = blobs(20)
    with pytest.raises(DataError, match="two classes"):
        fit_linear_probe(vectors, torch.zeros_like(labels), 4)
    with pytest.raises(DataError, match=r"0\.\.2"):
        fit_linear_probe(vectors, labels, 3)
    with pytest.raises(DataError, match="NaN"):
        fit_linear_probe(vectors * torch.nan, labels, 4)
    with pytest.raises(ShapeError, match="labels"):
        fit_linear_probe(vectors, labels[:-1], 4)
