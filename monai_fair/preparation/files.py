"""One scan from file to files: read, prepared, written whole, and skipped when that is already done."""

from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import SimpleITK as sitk  # noqa: N813

from monai_fair.data.artifacts import atomic_path, fingerprint, read_json, sha256, write_json
from monai_fair.data.volumes import Volume, read_labels, write_volume
from monai_fair.errors import ArtifactError, GeometryError
from monai_fair.preparation.conversion import itk_affine
from monai_fair.preparation.options import PreparationOptions, load_template
from monai_fair.preparation.reading import read_affine, read_scan
from monai_fair.preparation.subject import PreparedScan, prepare_scan

KIND = "prepared_scan"
_PACKAGES = ("SimpleITK", "nilearn", "nibabel", "numpy", "scipy")


@dataclass(frozen=True)
class ScanJob:
    """One row of a manifest and where its results go.

    Attributes:
        subject_id: as in the manifest.
        scan: the file to prepare.
        mask: its brain mask, if there is one.
        stem: start of every output's path, such as ``OUT/sub-1/anat/sub-1``.
        sha256: of ``scan`` as the manifest has it; empty if it does not say.
        options: what is done.
        affine: its affine map from other software, if there is one.
    """

    subject_id: str
    scan: Path
    mask: Path | None
    stem: Path
    sha256: str
    options: PreparationOptions
    affine: Path | None = None

    def output(self, name: str) -> Path:
        """Return the path of ``image``, ``mask``, ``affine`` or ``sidecar``."""
        space = self.options.space
        ending = {
            "image": f"_space-{space}_desc-preproc_T1w.nii.gz",
            "mask": f"_space-{space}_desc-brain_mask.nii.gz",
            "affine": f"_from-{space}_to-T1w_mode-points_xfm.tfm",
            "sidecar": f"_space-{space}_desc-preproc_T1w.json",
        }[name]
        return self.stem.with_name(self.stem.name + ending)


def prepare_file(job: ScanJob) -> dict[str, Any]:
    """Prepare one scan, unless that is done already with the same input and options.

    Writes the image, the mask, the transform (ITK, from points of the output to points of the scan, which is what
    resampling needs) and, last, a JSON sidecar with hashes, versions and measures.

    Returns:
        The sidecar's content.

    Raises:
        GeometryError: if the scan, its mask or its affine map cannot be used.
        RegistrationError: if it cannot be registered.
    """
    identity = {"inputs": _inputs(job), "options_hash": fingerprint(job.options.parameters())}
    known = _finished(job, identity)
    if known is not None:
        return known
    for name in ("sidecar", "image", "mask", "affine"):
        job.output(name).unlink(missing_ok=True)
    scan, affine_from = read_scan(job.scan, orientation=job.options.orientation)
    template, template_mask = load_template(job.options)
    matrix = read_affine(job.affine) if job.affine else None
    prepared = prepare_scan(scan, template, template_mask, job.options, mask=_read_mask(job), matrix=matrix)
    _write(job, prepared, template)
    content = {
        "subject_id": job.subject_id,
        **identity,
        "input": {
            "shape": scan.grid.shape,
            "spacing_mm": [round(step, 6) for step in scan.grid.spacing_mm],
            "orientation": scan.grid.orientation,
            "affine_from": affine_from,
        },
        "measures": prepared.measures,
        "affine": {"template_to_scan_ras_mm": prepared.fit.matrix, "output_to_scan_ras_mm": prepared.matrix},
        "versions": {name: metadata.version(name) for name in _PACKAGES},
        "outputs": {name: sha256(job.output(name)) for name in ("image", "mask", "affine")},
    }
    write_json(job.output("sidecar"), KIND, content)
    return read_json(job.output("sidecar"), KIND)


def _inputs(job: ScanJob) -> dict[str, str]:
    """Hash every file the scan is read from; of an Analyze pair, both."""
    files = [job.scan]
    if job.scan.name.endswith((".hdr", ".img")):
        files = [job.scan.with_suffix(ending) for ending in (".hdr", ".img")]
    named = {f"scan {path.name}": path for path in files}
    named |= {f"mask {job.mask.name}": job.mask} if job.mask else {}
    named |= {f"affine {job.affine.name}": job.affine} if job.affine else {}
    # a missing file is the reader's to describe
    hashes = {name: sha256(path) for name, path in named.items() if path.is_file()}
    found = hashes.get(f"scan {job.scan.name}", "")
    if job.sha256 and found and job.sha256 != found:
        raise GeometryError(
            f"{job.scan}: expected sha256 {job.sha256[:12]}... (manifest), got {found[:12]}...: the file has changed"
        )
    return hashes


def _finished(job: ScanJob, identity: dict[str, Any]) -> dict[str, Any] | None:
    try:
        known = read_json(job.output("sidecar"), KIND)
    except ArtifactError:
        # absent, or cut short by something else than this package: made again
        return None
    same = all(known.get(name) == value for name, value in identity.items())
    whole = same and all(
        job.output(name).is_file() and sha256(job.output(name)) == digest for name, digest in known["outputs"].items()
    )
    return known if whole else None


def _read_mask(job: ScanJob) -> Volume | None:
    if job.mask is None:
        return None
    if job.mask.name.endswith((".nii", ".nii.gz")):
        return read_labels(job.mask)
    return read_scan(job.mask, orientation=job.options.orientation)[0]


def _write(job: ScanJob, prepared: PreparedScan, template: Volume) -> None:
    write_volume(job.output("image"), prepared.image, template.grid)
    write_volume(job.output("mask"), prepared.mask, template.grid)
    with atomic_path(job.output("affine"), suffix=".part.tfm") as temporary:
        sitk.WriteTransform(itk_affine(prepared.matrix), str(temporary))
