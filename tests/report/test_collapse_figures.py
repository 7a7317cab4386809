"""Where the marks of the figures of a study of neural collapse stand."""

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_fair.report.collapse_curve_figure import Column, curve_figure, curve_index
from monai_fair.report.collapse_difference_figure import difference_figure
from monai_fair.report.collapse_plane_figure import panel_of
from monai_fair.report.collapse_split_figure import split_figure

BLUE, RED = "#0072b2", "#d55e00"


@pytest.fixture(scope="module")
def made(neighbour: Callable[[str], Any]) -> Callable[..., dict[str, Any]]:
    return neighbour("collapse_made").made_results  # type: ignore[no-any-return]


def test_marks_of_differences_stand_where_the_values_are(made: Any) -> None:
    """Two differences fix the scale of a panel; all others test it."""
    results = made(2, 10)
    svg = difference_figure(results["comparisons"], results["experiments"])["svg"]
    for measure, part, panel in (("nc1_normalized", "test_to_train", 0), ("f1", "test", 1)):
        rows = [
            row for row in results["comparisons"] if row["group"] and (row["measure"], row["part"]) == (measure, part)
        ]
        for colour, is_g1 in ((RED, True), (BLUE, False)):
            own = [row for row in rows if (row["group"] == "female") == is_g1]
            drawn = [float(x) for x in re.findall(rf'<use [^>]*x="([\d.]+)"[^>]*stroke: {colour}', svg)]
            assert len(drawn) == 2 * 4 + 1  # of two experiments early and final, in two panels; and the legend
            x = np.array(drawn[4 * panel : 4 * panel + 4])
            values = np.array([row["difference"] for row in own])
            slope, start = np.polyfit(values, x, 1)
            assert slope > 0
            np.testing.assert_allclose(slope * values + start, x, atol=0.2)


def test_points_of_the_split_test_stand_on_one_scale_of_both_axes(made: Any) -> None:
    results = made(6, 10)
    names = [own["name"] for own in results["experiments"]]
    svg = split_figure(results["split"]["points"], names)["svg"]
    for colour, arm in ((BLUE, "clean"), (RED, "biased")):
        drawn = re.findall(rf'<use [^>]*x="([\d.]+)" y="([\d.]+)"[^>]*stroke: {colour}', svg)[:12]
        places = np.array(drawn, dtype=float)
        for number, checkpoint in enumerate(("early", "final")):
            own = [p for p in results["split"]["points"] if p["arm"] == arm and p["checkpoint"] == checkpoint]
            x, y = places[6 * number : 6 * number + 6].T
            across = np.polyfit([point["separability_mean"] for point in own], x, 1)
            up = np.polyfit([point["split_mean"] for point in own], y, 1)
            np.testing.assert_allclose(np.polyval(across, [p["separability_mean"] for p in own]), x, atol=0.1)
            np.testing.assert_allclose(up[0], -across[0], rtol=0.01)


def test_curves_are_straight_on_a_logarithmic_axis(made: Any) -> None:
    """The made-up means lose a tenth in 10 epochs or in 20: straight lines, one twice as steep as the other."""
    results, column = made(1, 10), Column("train", "nc1_pinv", log=True)
    index = curve_index(results["curves"])
    svg = curve_figure(index, results["experiments"], [column], name="one panel", groups=False)["svg"]
    slopes = []
    for colour in (BLUE, RED):
        path = re.search(rf'<path d="(M[^"]*)"[^>]*fill: none[^>]*stroke: {colour}[^>]*stroke-width: 1.3', svg)
        assert path is not None
        x, y = np.array(re.findall(r"([\d.]+) ([\d.]+)", path[1]), dtype=float).T
        slope, start = np.polyfit(x, y, 1)
        np.testing.assert_allclose(slope * x + start, y, atol=0.2)
        slopes.append(slope)
    assert slopes[0] / slopes[1] == pytest.approx(2, rel=0.02)


@given(
    st.floats(-3, 3), st.floats(0.1, 50), st.floats(-1e3, 1e3), st.floats(-1e3, 1e3), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_a_panel_turns_and_scales_without_changing_who_is_nearer(
    angle: float, scale: float, right: float, up: float, seed: int
) -> None:
    """Distances to both means, in units of that between them, are those of the features themselves."""
    rng = np.random.default_rng(seed)
    turn = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    means = np.array([[0.0, 0.0], [1.0, 0.0]]) @ turn.T + [right, up]
    points, clean = scale * rng.normal(size=(20, 2)) + [right, up], np.ones(20, dtype=int)
    record = {"points": points, "means": means.tolist(), "label": 0 * clean, "clean_label": clean, "in_group": clean}
    panel = panel_of(record, "")
    distances = np.linalg.norm(points[:, None] - means, axis=2)
    seen = np.linalg.norm(panel.points[:, None] - np.array([[0.0, 0.0], [1.0, 0.0]]), axis=2)
    np.testing.assert_allclose(seen, distances / scale, rtol=1e-6, atol=1e-6)
    assert panel.near_true == (distances[:, 1] < distances[:, 0]).sum()
