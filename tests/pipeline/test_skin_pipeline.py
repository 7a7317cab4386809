"""The whole way, as the README goes it: simulate, manifest, train ERM and NIR, score, audit, report."""

import json
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import run

from monai_fair.data import build_manifest, read_manifest, read_predictions, write_manifest
from monai_fair.report import audit_files
from monai_fair.simulation import simulate_skin

# MONAI says of every config that it is a program (GHSA-873f-pvrv-4x83); these are our own.
pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")

BUNDLE = Path(__file__).parents[2] / "bundles" / "fair_image_classification"


def test_from_a_cohort_to_a_report(tmp_path: Path) -> None:
    data = simulate_skin(tmp_path / "data", n=120, seed=1, size=32, num_workers=1)
    manifest = write_manifest(build_manifest("ham10000", data, split=data / "split.csv"), data / "manifest.csv")
    options: dict[str, Any] = {
        "bundle_root": str(BUNDLE),
        "dataset_dir": str(data),
        "image_size": 28,
        "max_epochs": 1,
        "progress": False,
        "network_def#block_inplanes": [4, 8, 8, 16],
    }
    for arm in ("erm", "nir"):
        names = ["train", "small", *(["nir"] if arm == "nir" else [])]
        output = str(tmp_path / "runs" / arm)
        for stage in (names, [*names, "evaluate"]):
            files = [str(BUNDLE / "configs" / f"{name}.yaml") for name in stage]
            run(config_file=files, output_dir=output, **options)

    tables = {arm: tmp_path / "runs" / arm / "predictions.csv" for arm in ("erm", "nir")}
    wanted = read_manifest(manifest).table.query("split != 'train'")
    for path in tables.values():
        assert read_predictions(path).table["image"].tolist() == wanted["image"].tolist()

    page = audit_files(
        [f"{arm}={path}" for arm, path in tables.items()],
        attributes=["sex", "age_group"],
        out=tmp_path / "audit",
        permutations=50,
    )
    metrics = json.loads((tmp_path / "audit" / "metrics.json").read_text())
    assert metrics["kind"]
    text = page.read_text()
    for word in ("erm", "nir", "sex", "age_group"):
        assert word in text
    # nobody's identity is in the report
    subjects = set(wanted["subject_id"])
    assert not [name for name in subjects if name in text]
    assert str(tmp_path) not in text
