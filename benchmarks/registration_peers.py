"""Registration methods of other packages, behind one interface, for any Python that has the package.

Nothing of monai_fair is imported here: each method runs in a process of its own, with the Python of the environment
that holds it, and exchanges NIfTI files. A method reads its images, returns what is to be timed, and writes the field
that takes a point of the subject to the template, in LPS millimetres, afterwards.
"""

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Prepared:
    """A registration whose packages are imported and whose images are in memory.

    Attributes:
        run: what is timed; returns the result, the whole field included where the package gives one.
        write: writes the field of the result, not timed.
        versions: of the packages that did the work.
        flops: operations in matrix products of one run, for methods that count them.
    """

    run: Callable[[], Any]
    write: Callable[[Any], None]
    versions: dict[str, str]
    flops: Callable[[], float] | None = field(default=None)


PARAMETERS = {
    "ants_syn": "ants.registration(type_of_transform='SyN'): affine and SyN as they come, Mattes MI with 32 bins, "
    "40 x 20 x 0",
    "ants_syn_cc": "ants.registration(type_of_transform='SyNOnly', initial_transform='Identity', syn_metric='CC', "
    "syn_sampling=2, reg_iterations=(100, 70, 50)); not better: radius 4, gradient step 0.1 or 0.4, flow sigma 2, an "
    "affine first, antsRegistrationSyN[so]",
    "elastix_bspline": "B-spline, 10 mm, 4 resolutions, Mattes MI, 500 iterations, 4096 new samples each; not better: "
    "8 mm, 10,000 samples, 1,000 iterations; as good: 12 mm, a bending penalty",
    "demons": "DiffeomorphicDemonsRegistrationFilter, shrunk by 4, 2 and 1, 100 iterations each, displacement smoothed "
    "by 1.25 voxels, histogram matching (1024 levels, 7 points); not better: 1, 1.5 or 2 voxels, a smoothed update; "
    "200 iterations gain 0.01 mm",
}


def ants_syn(template: Path, image: Path, out: Path, *, threads: int) -> Prepared:
    """ANTs SyN with the defaults of antspyx: affine, then SyN with mutual information, 40 x 20 x 0."""
    return _ants(template, image, out, {"type_of_transform": "SyN"})


def ants_syn_cc(template: Path, image: Path, out: Path, *, threads: int) -> Prepared:
    """ANTs SyN with local correlation of radius 2 from the identity, 100 x 70 x 50 (the images are aligned)."""
    options = {
        "type_of_transform": "SyNOnly",
        "initial_transform": "Identity",
        "syn_metric": "CC",
        "syn_sampling": 2,
        "reg_iterations": (100, 70, 50),
    }
    return _ants(template, image, out, options)


def _ants(template: Path, image: Path, out: Path, options: dict[str, Any]) -> Prepared:
    # threads: ITK reads ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS, which the caller sets
    import ants

    fixed, moving = ants.image_read(str(image)), ants.image_read(str(template))
    scratch = tempfile.TemporaryDirectory()

    def run() -> Any:
        return ants.registration(fixed, moving, outprefix=f"{scratch.name}/", random_seed=0, **options)

    def write(result: Any) -> None:
        names = result["fwdtransforms"]
        composed = ants.apply_transforms(fixed, moving, names, compose=f"{scratch.name}/all")
        out.write_bytes(Path(composed).read_bytes())
        scratch.cleanup()

    return Prepared(run, write, {"antspyx": version("antspyx")})


def elastix_bspline(template: Path, image: Path, out: Path, *, threads: int) -> Prepared:
    """elastix: cubic B-splines, four resolutions, mutual information, adaptive stochastic gradient descent.

    The bending penalty of elastix's default parameters is left out: with several threads it ends itk-elastix 0.25.4
    (segmentation fault), and with one it changed the mean error by 0.01 mm.
    """
    import itk

    fixed, moving = (itk.imread(str(path), itk.F) for path in (image, template))
    parameters = itk.ParameterObject.New()
    chosen = {
        **parameters.GetDefaultParameterMap("bspline", 4, 10.0),
        "Registration": ("MultiResolutionRegistration",),
        "Metric": ("AdvancedMattesMutualInformation",),
        "MaximumNumberOfIterations": ("500",),
        "NumberOfSpatialSamples": ("4096",),
        "WriteResultImage": ("false",),
    }
    chosen.pop("Metric1Weight")
    parameters.AddParameterMap(chosen)

    def run() -> Any:
        _, found = itk.elastix_registration_method(
            fixed, moving, parameter_object=parameters, number_of_threads=threads, log_to_console=False
        )
        return itk.transformix_deformation_field(moving, found)

    def write(result: Any) -> None:
        itk.imwrite(result, str(out))

    return Prepared(run, write, {"itk-elastix": version("itk-elastix"), "itk": version("itk")})


def demons(template: Path, image: Path, out: Path, *, threads: int) -> Prepared:
    """SimpleITK's diffeomorphic demons (Vercauteren et al., NeuroImage 2009), coarse to fine, matched histograms."""
    import SimpleITK as sitk  # noqa: N813

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    fixed, moving = (sitk.ReadImage(str(path), sitk.sitkFloat32) for path in (image, template))

    def run() -> Any:
        matched = sitk.HistogramMatching(moving, fixed, 1024, 7, True)
        found = None
        for factor in (4, 2, 1):
            small, moved = (_shrunk(sitk, picture, factor) for picture in (fixed, matched))
            filtered = sitk.DiffeomorphicDemonsRegistrationFilter()
            filtered.SetNumberOfIterations(100)
            filtered.SetStandardDeviations(1.25)
            if found is None:
                found = filtered.Execute(small, moved)
            else:
                found = filtered.Execute(small, moved, sitk.Resample(found, small))
        return found

    def write(result: Any) -> None:
        sitk.WriteImage(result, str(out))

    return Prepared(run, write, {"SimpleITK": version("SimpleITK")})


def _shrunk(sitk: Any, picture: Any, factor: int) -> Any:
    """Blur against aliasing and keep every ``factor``-th voxel."""
    if factor == 1:
        return picture
    sigmas = [0.5 * factor * spacing for spacing in picture.GetSpacing()]
    size = [math.ceil(length / factor) for length in picture.GetSize()]
    grid = sitk.Image(size, sitk.sitkFloat32)
    grid.SetSpacing([factor * spacing for spacing in picture.GetSpacing()])
    grid.SetDirection(picture.GetDirection())
    middle = [
        (length - 1) / 2 - factor * (count - 1) / 2 for length, count in zip(picture.GetSize(), size, strict=True)
    ]
    grid.SetOrigin(picture.TransformContinuousIndexToPhysicalPoint(middle))
    return sitk.Resample(sitk.SmoothingRecursiveGaussian(picture, sigmas), grid)
