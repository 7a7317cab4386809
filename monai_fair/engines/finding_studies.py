"""The same study of several findings: one after the other, each in a folder of its own, and averages over them."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai_fair.engines.named_studies import NamedStudies
from monai_fair.engines.study import BundleStudy
from monai_fair.engines.study_plan import Arm, name_problems
from monai_fair.errors import ArtifactError, raise_problems

_KEYS = {"manifest", "overlays", "external"}


class FindingStudies(NamedStudies):
    """One :class:`monai_fair.engines.BundleStudy` for each finding, in ``output_dir/FINDING``.

    Args:
        findings: name to ``manifest``, whose labels are those of the finding; to ``overlays``, if it has settings of
            its own: config files laid over the last training of arms; and to ``external``, if there are other data with
            its labels, as in the study.
        study: makes a study, told all but ``manifest``, ``output_dir``, ``arms`` and ``external``.
        arms: of every study.
        output_dir: folder of all studies.
        trainings: overlays of a finding are laid over the last training of arms with so many trainings or more, below
            what the arm itself lays over it. 3 leaves ERM, a baseline of one training, and stage 1 alone, of two, as
            they are.
        external: refused: other data of all findings, because each of them needs labels of its own.

    Attributes:
        studies: finding to its study.

    Raises:
        ArtifactError: with every finding that cannot be read, or overlays that no arm would take; or with every config
            and input of a study that is not there.
    """

    def __init__(
        self,
        findings: Mapping[str, Mapping[str, Any]],
        study: Callable[..., BundleStudy],
        arms: Mapping[str, Arm],
        output_dir: str,
        *,
        trainings: int = 3,
        external: Mapping[str, Any] | None = None,
    ) -> None:
        problems = [*_problems(findings, arms, trainings)]
        if external:  # would score every finding's models on the labels of one
            problems.append(f"expected other data in each finding, got {', '.join(external)} for all; move them there")
        raise_problems(ArtifactError, f"findings {output_dir}", problems)
        studies = {
            name: study(
                manifest=finding["manifest"],
                output_dir=str(Path(output_dir) / name),
                arms={arm: _laid_over(own, finding.get("overlays", ()), trainings) for arm, own in arms.items()},
                external=finding.get("external"),
            )
            for name, finding in findings.items()
        }
        super().__init__(studies, output_dir)

    def check(self, check: Callable[..., None]) -> None:
        """Refuse what the studies could not take.

        Args:
            check: :func:`monai_fair.engines.study_checks.check_attributes`, told all but ``manifests`` and
                ``external``.

        Raises:
            MonaiFairError: with what it said of each finding.
        """
        self.each(lambda _, study: check(manifests=study.manifests, external=study.external))

    def audit(self, audit: Callable[..., Path], external: Callable[..., Path]) -> list[Path]:
        """Audit each finding, and each finding on its other data.

        Args:
            audit: :func:`monai_fair.report.audit_files`, told all but ``predictions`` and ``out``.
            external: the same for other data.

        Returns:
            Paths of the pages.
        """
        pages = []
        for study in self.studies.values():
            pages.append(audit(predictions=study.predictions, out=study.output_dir))
            logging.getLogger(__name__).info("%s", pages[-1])
            pages += study.audit_external(external)
        return pages

    def average(self, page: Callable[..., Path]) -> list[Path]:
        """Average over findings, and for each of the other data over the findings that have them.

        Args:
            page: :func:`monai_fair.report.findings_page.write_findings_page`, told all but ``audits`` and ``out``.

        Returns:
            What it returned for each: ``findings.html`` in ``output_dir``, then in ``output_dir/external_NAME``.
        """
        folders = ["", *dict.fromkeys(f"external_{name}" for study in self.studies.values() for name in study.external)]
        return [
            page(
                {
                    name: study.output_dir / folder / "metrics.json"
                    for name, study in self.studies.items()
                    if not folder or folder.removeprefix("external_") in study.external
                },
                out=self.output_dir / folder,
            )
            for folder in folders
        ]


def _problems(findings: Mapping[str, Mapping[str, Any]], arms: Mapping[str, Arm], trainings: int) -> Iterator[str]:
    if not findings:
        yield "expected at least one finding, got none; name one"
    yield from name_problems("finding", findings)
    takes = any(_takes_overlays(_trainings(arm), trainings) for arm in arms.values())
    for name, finding in findings.items():
        if not isinstance(finding, Mapping) or "manifest" not in finding or not {*finding} <= _KEYS:
            yield f"finding '{name}': expected 'manifest', and perhaps 'overlays' and 'external', got {finding!r}"
            continue
        overlays = finding.get("overlays", ())
        if isinstance(overlays, str) or not isinstance(overlays, Sequence):
            yield f"finding '{name}': expected a list of config files as overlays, got {overlays!r}; write a list"
        elif overlays and not takes:
            yield (
                f"finding '{name}': expected an arm with {trainings} trainings for {', '.join(map(str, overlays))}, "
                "found none; lower 'trainings'"
            )


def _trainings(arm: Arm) -> Any:
    return arm.get("trainings") if isinstance(arm, Mapping) else arm


def _takes_overlays(found: Any, trainings: int) -> bool:
    """Whether these are so many trainings; what is no such list the study refuses."""
    return isinstance(found, list | tuple) and len(found) >= trainings and all(isinstance(own, list) for own in found)


def _laid_over(arm: Arm, overlays: Sequence[str], trainings: int) -> Arm:
    """Lay overlays over the last training of an arm, below its own, if it has so many trainings."""
    found = _trainings(arm)
    if not overlays or not _takes_overlays(found, trainings):
        return arm
    changed = [*found[:-1], [*overlays, *found[-1]]]
    return {**arm, "trainings": changed} if isinstance(arm, Mapping) else changed
