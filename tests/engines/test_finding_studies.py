"""Studies of several findings: what each of them is given, and what is refused; their runs are those of any study."""

from pathlib import Path
from typing import Any

import pytest

from monai_fair.engines import BundleStudy
from monai_fair.engines.finding_studies import FindingStudies
from monai_fair.errors import ArtifactError, MonaiFairError

ONE, TWO, LAST = ["a.yaml"], ["b.yaml"], ["c.yaml", {"strength": 0}]
ARMS: dict[str, Any] = {
    "erm": ["erm.yaml"],
    "two": [ONE, TWO],
    "three": [ONE, TWO, LAST],
    "again": {"trainings": [ONE, TWO, []], "evaluate": ["e.yaml"]},
}
ELSEWHERE = {"mimic": {"manifest": "m.csv", "dataset_dir": "m"}}


class Recorder:
    """Stands in for a study: keeps what it was told, and fails if its manifest says so."""

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.output_dir, self.external = Path(options["output_dir"]), options["external"] or {}
        self.manifests, self.predictions = [options["manifest"]], [f"erm={self.output_dir}/predictions.csv"]
        self.ran = False

    def run(self) -> None:
        self.ran = True
        if self.options["manifest"] == "broken.csv":
            raise MonaiFairError("study: erm/seed_0: no")

    def audit_external(self, audit: Any) -> list[Path]:
        return [audit("tables", out=self.output_dir / f"external_{name}") for name in self.external]


def made(findings: Any, arms: Any = ARMS, **options: Any) -> FindingStudies:
    return FindingStudies(findings, Recorder, arms, "out", **options)  # type: ignore[arg-type]


def test_each_finding_has_its_manifest_folder_and_other_data() -> None:
    found = made({"A": {"manifest": "a.csv"}, "B": {"manifest": "b.csv", "external": ELSEWHERE}}).studies
    told = {name: study.options for name, study in found.items()}  # type: ignore[attr-defined]
    assert told == {
        "A": {"manifest": "a.csv", "output_dir": "out/A", "arms": ARMS, "external": None},
        "B": {"manifest": "b.csv", "output_dir": "out/B", "arms": ARMS, "external": ELSEWHERE},
    }


def test_overlays_are_laid_over_the_last_of_three_trainings_below_the_arms_own() -> None:
    study = made({"A": {"manifest": "a.csv", "overlays": ["f.yaml"]}}).studies["A"]
    assert study.options["arms"] == {  # type: ignore[attr-defined]
        "erm": ["erm.yaml"],
        "two": [ONE, TWO],
        "three": [ONE, TWO, ["f.yaml", "c.yaml", {"strength": 0}]],
        "again": {"trainings": [ONE, TWO, ["f.yaml"]], "evaluate": ["e.yaml"]},
    }
    fewer = made({"A": {"manifest": "a.csv", "overlays": ["f.yaml"]}}, trainings=2).studies["A"]
    assert fewer.options["arms"]["two"] == [ONE, ["f.yaml", "b.yaml"]]  # type: ignore[attr-defined]
    assert ARMS["three"][-1] == ["c.yaml", {"strength": 0}]


def test_every_problem_of_the_findings_is_named() -> None:
    findings = {
        "A b": {"manifest": "a.csv"},
        "C": ["c.csv"],
        "D": {"manifest": "d.csv", "overlay": ["d.yaml"]},
        "E": {"manifest": "e.csv", "overlays": "e.yaml"},
        "F": {"manifest": "f.csv", "overlays": ["f.yaml"]},
    }
    with pytest.raises(ArtifactError) as caught:
        made(findings, {"erm": ["erm.yaml"]}, external=ELSEWHERE)
    expected = "expected 'manifest', and perhaps 'overlays' and 'external', got"
    assert str(caught.value).splitlines() == [
        "findings out: 6 problems",
        "  1. finding 'A b': expected a name of letters, digits, '_', '.' or '-', from a letter on; give it such a one",
        f"  2. finding 'C': {expected} ['c.csv']",
        f"  3. finding 'D': {expected} {{'manifest': 'd.csv', 'overlay': ['d.yaml']}}",
        "  4. finding 'E': expected a list of config files as overlays, got 'e.yaml'; write a list",
        "  5. finding 'F': expected an arm with 3 trainings for f.yaml, found none; lower 'trainings'",
        "  6. expected other data in each finding, got mimic for all; move them there",
    ]
    with pytest.raises(ArtifactError, match=r"^findings out: expected at least one finding, got none; name one$"):
        made({})


def test_an_arm_that_cannot_be_read_is_refused_by_its_study(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("")

    def study(**options: Any) -> BundleStudy:
        return BundleStudy(str(tmp_path), seeds=[0], **options)

    findings = {"A": {"manifest": str(tmp_path / "m.csv"), "overlays": ["f.yaml"]}}
    with pytest.raises(ArtifactError, match="arm 'bad': expected a list of overlays, or such a list for each training"):
        FindingStudies(findings, study, {"good": [[], [], []], "bad": "erm.yaml"}, str(tmp_path / "out"))


def test_what_fails_stops_no_other_finding() -> None:
    findings = made({"A": {"manifest": "broken.csv"}, "B": {"manifest": "b.csv"}, "C": {"manifest": "broken.csv"}})
    with pytest.raises(MonaiFairError) as caught:
        findings.run()
    assert str(caught.value) == "A: study: erm/seed_0: no\nC: study: erm/seed_0: no"
    assert all(study.ran for study in findings.studies.values())  # type: ignore[attr-defined]


def test_every_finding_is_checked_with_its_own_data() -> None:
    findings = made({"A": {"manifest": "a.csv"}, "B": {"manifest": "b.csv", "external": ELSEWHERE}})
    seen = []

    def check(**told: Any) -> None:
        seen.append(told)
        if told["external"]:
            raise MonaiFairError("m.csv: no")

    with pytest.raises(MonaiFairError, match=r"^B: m\.csv: no$"):
        findings.check(check)
    assert seen == [{"manifests": ["a.csv"], "external": {}}, {"manifests": ["b.csv"], "external": ELSEWHERE}]


def test_audits_and_averages_are_asked_for_in_their_folders() -> None:
    findings = made(
        {"A": {"manifest": "a.csv"}, "B": {"manifest": "b.csv", "external": ELSEWHERE}, "C": {"manifest": "c.csv"}}
    )
    here, there = Path("out"), Path("out/external_mimic")
    audited: list[tuple[Any, Path]] = []

    def audit(predictions: Any = None, *, out: Path) -> Path:
        audited.append((predictions, out))
        return out / "report.html"

    pages = findings.audit(audit, audit)
    assert pages == [out / "report.html" for out in (here / "A", here / "B", here / "B/external_mimic", here / "C")]
    assert audited[1:3] == [(["erm=out/B/predictions.csv"], here / "B"), ("tables", here / "B/external_mimic")]

    averaged = {}

    def page(audits: dict[str, Path], *, out: Path) -> Path:
        averaged[out] = audits
        return out / "findings.html"

    assert findings.average(page) == [here / "findings.html", there / "findings.html"]
    assert averaged == {
        here: {name: here / name / "metrics.json" for name in "ABC"},
        there: {"B": here / "B/external_mimic/metrics.json"},
    }
