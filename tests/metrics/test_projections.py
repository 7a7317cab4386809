"""Pictures of features: what is known of their axes, and that near stays near."""

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from monai_fair.errors import MonaiFairError
from monai_fair.metrics.projections import pca_plane, tsne_plane


def clouds(rows: int = 60, columns: int = 80) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    cloud = np.repeat([0, 1, 2], rows)
    return rng.standard_normal((3 * rows, columns)) + 30 * cloud[:, None], cloud


def test_principal_components_of_a_turned_box() -> None:
    """Corners at +-3 and +-1 have variances of 9 and 1, however the box is turned and moved."""
    corners = np.array([[a, b] for a in (-3.0, 3.0) for b in (-1.0, 1.0)]).repeat(4, axis=0)
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((5, 5)))[0][:2]
    plane, shares = pca_plane(corners @ turn + 100)
    assert shares == pytest.approx((0.9, 0.1))
    assert np.abs(plane) == pytest.approx(np.abs(corners))
    distances = np.linalg.norm(plane[:, None] - plane[None], axis=2)
    assert distances == pytest.approx(np.linalg.norm(corners[:, None] - corners[None], axis=2))


def test_one_column_has_no_second_direction() -> None:
    column = np.arange(12.0)[:, None]
    plane, shares = pca_plane(column)
    assert shares == (1.0, 0.0)
    assert np.abs(plane[:, 0]) == pytest.approx(np.abs(column[:, 0] - 5.5))
    assert not plane[:, 1].any()
    assert np.isfinite(tsne_plane(column)).all()


def test_clouds_stay_apart() -> None:
    x, cloud = clouds()
    plane = tsne_plane(x)
    distances = np.linalg.norm(plane[:, None] - plane[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert (cloud[distances.argmin(axis=1)] == cloud).all()


def test_the_same_seed_gives_the_same_picture_with_any_number_of_threads() -> None:
    x, _ = clouds(30)
    with threadpool_limits(limits=1):
        once = tsne_plane(x, seed=1)
    assert np.array_equal(tsne_plane(x, seed=1), once)


def test_equal_rows_stay_together() -> None:
    """Features of attributes only have as many places as there are joint groups."""
    levels = np.random.default_rng(0).standard_normal((4, 6)).repeat(20, axis=0)
    plane = tsne_plane(levels).reshape(4, 20, 2)
    within = np.ptp(plane, axis=1).max()
    centres = plane.mean(axis=1)
    between = np.linalg.norm(centres[:, None] - centres[None], axis=2)[np.triu_indices(4, 1)].min()
    assert within < between / 2


@pytest.mark.parametrize("plane", [pca_plane, tsne_plane])
def test_what_makes_no_picture_is_refused(plane: object) -> None:
    assert callable(plane)
    name = plane.__name__
    with pytest.raises(MonaiFairError, match=rf"^{name}: expected finite .* at least 10 rows .*, got shape \(9, 3\)"):
        plane(np.eye(9, 3))
    with pytest.raises(MonaiFairError, match=r"got shape \(20,\)"):
        plane(np.arange(20.0))
    with pytest.raises(MonaiFairError, match=r"got shape \(20, 0\)"):
        plane(np.zeros((20, 0)))
    with pytest.raises(MonaiFairError, match="expected finite"):
        plane(np.where(np.eye(20) > 0, np.nan, 0.0))
    with pytest.raises(MonaiFairError, match=f"^{name}: expected rows that differ, got 20 that are the same$"):
        plane(np.ones((20, 3)))
