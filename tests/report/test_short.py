"""The first minute of a page: gaps of every run, with their direction and what chance gives."""

import copy
from typing import Any

import pytest

from monai_fair.data.predictions import check_predictions
from monai_fair.metrics import audit
from monai_fair.report import build_page
from monai_fair.report.masking import masks_of
from monai_fair.report.quantities import quantity
from monai_fair.report.short import short_view


def test_gaps_have_direction_interval_and_chance(results: dict[str, Any]) -> None:
    own = copy.deepcopy(results)
    target = own["targets"][0]
    sex, site = target["tables"][:2]
    ends = {"lowest": {"group": "female"}, "highest": {"group": "male"}}
    sex["gaps"]["ERM"]["tpr@youden"] |= {"value": 0.2, "low": 0.05, "high": 0.35, "chance": 0.08, "p": 0.004, **ends}
    sex["gaps"]["ERM"]["tpr@youden"]["p_holm"] = 0.012
    sex["gaps"]["NIR"]["tpr@youden"] |= {"value": 0.1, "low": None, "high": None, "p": None, "lowest": None}
    change = {"value": -0.1, "cases": {"low": -0.2, "high": 0.0}, "p": 0.03}
    sex["gap_differences"]["NIR"]["tpr@youden"] |= change
    sex["gaps"]["NIR"]["auc"] |= {"value": None, "reason": "one group only", "lowest": None, "highest": None}
    target["overall"]["cells"]["ERM"]["auc"] |= {"value": 0.8, "low": 0.7, "high": 0.9}
    target["overall"]["cells"]["NIR"]["auc"] |= {"value": 0.9, "low": None, "high": None}
    mask = masks_of(target, 10, show_small=True).overall
    found = short_view(target, [sex, site], ["ERM", "NIR"], [quantity("auc"), quantity("tpr@youden")], mask)
    assert found["overall"] == f"AUC of all {target['overall']['n']:,} cases: ERM 0.800 (0.700 to 0.900) and NIR 0.900."
    assert found["heads"] == ["TPR, points", "AUC"]
    assert [body["attribute"] for body in found["bodies"]] == ["sex", "site"]
    erm, nir = found["bodies"][0]["rows"]
    assert (erm["run"], erm["cells"][0]["text"]) == ("ERM", "20.0")
    assert erm["cells"][0]["lines"] == ["5.0 to 35.0", "chance 8.0", "p 0.004, Holm 0.012"]
    assert erm["cells"][0]["words"] == ["lowest: female"]
    assert nir["cells"][0]["lines"] == ["change −10.0", "−20.0 to 0.0, p 0.030"]
    assert (nir["cells"][1]["text"], nir["cells"][1]["words"]) == ("undefined", ["one group only"])


@pytest.mark.usefixtures("bare_pages")
def test_it_stands_first_where_runs_are_compared_and_nowhere_else(results: dict[str, Any], simulated: Any) -> None:
    page = build_page(results)
    assert page.index('id="short"') < page.index('id="summary"')
    alone = audit({"ERM": [check_predictions(simulated(0), "p.csv")]}, ["sex"], permutations=20, resamples=100)
    assert 'id="short"' not in build_page(alone)
