"""A head for few images, against numpy's own solution; and what is read off a curve."""

from unittest import mock

import numpy
import pytest
import torch

from benchmarks import worth
from helpers import transfer


@pytest.fixture
def few():
    """Eleven images, three classes; of eight features the second half is on a larger scale."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(11, 8, generator=generator, dtype=torch.float64) + torch.arange(8)
    return features * torch.tensor([1.0] * 4 + [50] * 4), torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1])


def solve(x, y, strength):
    """Weights and bias that minimise |y − xw − b|² + strength · |w|², from the normal equations; b has no penalty."""
    x = numpy.column_stack([x, numpy.ones(len(x))])
    penalty = strength * numpy.eye(x.shape[1])
    penalty[-1, -1] = 0
    return numpy.linalg.solve(x.T @ x + penalty, x.T @ y)


def scaled(x):
    """Less the mean; each half divided by its one deviation, and all by the root of the number of features."""
    x = x - x.mean(0)
    halves = [half / numpy.sqrt((half**2).mean()) for half in numpy.split(x, 2, axis=1)]
    return numpy.concatenate(halves, axis=1) / numpy.sqrt(x.shape[1])


def left_out(x, y, strength):
    """The mean squared error on each image by a fit on all others: one fit for each."""
    errors = []
    for i in range(len(x)):
        rest = numpy.arange(len(x)) != i
        solution = solve(x[rest], y[rest], strength)
        errors.append((y[i] - numpy.append(x[i], 1) @ solution) ** 2)
    return numpy.mean(errors)


def test_the_head_is_the_exact_solution_for_the_penalty_that_leaves_one_out_best(few):
    features, labels = few
    x, y = scaled(features.numpy()), numpy.eye(3)[labels]
    losses = [left_out(x, y, penalty * len(x)) for penalty in transfer.PENALTIES.numpy()]
    head, penalty = transfer.ridge_head(features, labels)
    assert penalty == pytest.approx(transfer.PENALTIES[int(numpy.argmin(losses))].item())
    expected = numpy.column_stack([x, numpy.ones(len(x))]) @ solve(x, y, penalty * len(x))
    numpy.testing.assert_allclose(head(features.float()).detach(), expected, atol=1e-4)


def test_the_error_on_an_image_left_out_needs_no_second_fit(few):
    x, y = scaled(few[0].numpy()), numpy.eye(3)[few[1]]
    energies, directions = torch.linalg.eigh(torch.from_numpy(x @ x.T))
    for penalty in (1e-4, 1e-2, 1.0):
        found = transfer.leave_one_out(energies, directions, torch.from_numpy(y - y.mean(0)), torch.tensor(penalty))
        assert found.item() == pytest.approx(left_out(x, y, penalty * len(x)), rel=1e-6)


def test_two_images_are_enough_and_a_constant_feature_does_no_harm():
    features = torch.tensor([[0.0, 1, 5, 5], [1, 0, 5, 5]])
    head, _ = transfer.ridge_head(features, torch.tensor([0, 1]))
    assert head(features).argmax(1).tolist() == [0, 1]
    assert torch.isfinite(head(torch.rand(3, 4))).all()


def test_a_draw_takes_as_many_of_each_class_and_no_image_twice():
    chosen = worth.draw([0] * 30 + [1] * 70, 20, seed=1)
    assert len(set(chosen)) == 20
    assert sum(place < 30 for place in chosen) == 10
    assert chosen != worth.draw([0] * 30 + [1] * 70, 20, seed=2)


@pytest.mark.parametrize("floor", [0.0, 0.02])
def test_the_law_behind_a_curve_is_found(floor):
    errors = {count: 0.4 * count**-0.5 + floor for count in worth.LAW_COUNTS}
    curve = {str(count): [0.9999 * error, 1.0001 * error] for count, error in errors.items()}
    assert worth.predicted_error(curve, 2000) == pytest.approx(0.4 * 2000**-0.5 + floor, rel=0.02)


def test_the_laws_draws_test_on_every_image_and_never_on_one_they_learned_from():
    labels, train = torch.arange(60) % 2, 40
    images = torch.randn(60, 4) + 3 * labels[:, None] * torch.tensor([1.0, 0, 0, 0])
    seen = []

    def one_draw(images, labels, train, count, kinds, seed):
        seen.append((images[:train], images[train:]))
        return 1.0

    with mock.patch.multiple(worth, one_draw=one_draw, LAW_COUNTS=(10,)):
        worth.law_errors(images, labels, train, 1)
    rows = {tuple(row.tolist()) for row in images}
    for learned, tested in seen:
        assert {tuple(row.tolist()) for row in torch.cat([learned, tested])} == rows
    assert {tuple(row.tolist()) for _, tested in seen for row in tested} == rows
