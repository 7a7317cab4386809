"""Where things are in a simulated brain: the field of view, ellipsoids of regions, centres of effects, all in RAS mm.

Positions are those of the MNI152 template, which the phantom shares. Centres are near the centroids of the AAL regions
of the same name, rounded to millimetres (the ventricles are not in AAL: middle of their bodies). An ellipsoid is simple
geometry, not a segmentation.

References:
    Tzourio-Mazoyer et al., Automated anatomical labeling of activations in SPM, NeuroImage 2002,
    doi:10.1006/nimg.2001.0978.
"""

from dataclasses import dataclass

CSF, GREY, WHITE = 1, 2, 3
TISSUES = {CSF: "CSF", GREY: "GM", WHITE: "WM"}
FIELD_OF_VIEW_MM = (160.0, 192.0, 160.0)
BRAIN_MM = (146.0, 182.0, 156.0)  # what the brain of the template spans


@dataclass(frozen=True)
class Ellipsoid:
    """A region: an ellipsoid, and the tissue that counts inside it.

    Attributes:
        name: of the region.
        centre_mm: RAS.
        semi_axes_mm: along right, anterior, superior.
        tissue: ``CSF`` or ``GREY``; voxels of other tissues do not belong to the region.
    """

    name: str
    centre_mm: tuple[float, float, float]
    semi_axes_mm: tuple[float, float, float]
    tissue: int


@dataclass(frozen=True)
class Site:
    """Where a local effect acts: ``v(x) = a (x - c) exp(-|x - c|^2 / (2 r^2))``."""

    name: str
    centre_mm: tuple[float, float, float]
    radius_mm: float


# In the order of their labels, from 1.
REGIONS = (
    Ellipsoid("left hippocampus", (-25.0, -21.0, -10.0), (9.0, 17.0, 9.0), GREY),
    Ellipsoid("right hippocampus", (29.0, -20.0, -10.0), (9.0, 17.0, 9.0), GREY),
    Ellipsoid("left lateral ventricle", (-11.0, -14.0, 20.0), (10.0, 30.0, 10.0), CSF),
    Ellipsoid("right lateral ventricle", (11.0, -14.0, 20.0), (10.0, 30.0, 10.0), CSF),
    Ellipsoid("left caudate", (-11.0, 11.0, 9.0), (6.0, 12.0, 10.0), GREY),
    Ellipsoid("right caudate", (15.0, 12.0, 9.0), (6.0, 12.0, 10.0), GREY),
    Ellipsoid("left putamen", (-24.0, 4.0, 2.0), (7.0, 15.0, 10.0), GREY),
    Ellipsoid("right putamen", (28.0, 5.0, 2.0), (7.0, 15.0, 10.0), GREY),
    Ellipsoid("left thalamus", (-11.0, -18.0, 8.0), (8.0, 12.0, 9.0), GREY),
    Ellipsoid("right thalamus", (13.0, -18.0, 8.0), (8.0, 12.0, 9.0), GREY),
)
DISEASE_SITE = Site("left hippocampus", (-25.0, -21.0, -10.0), 10.0)
GROUP_SITE = Site("right middle frontal gyrus", (38.0, 33.0, 34.0), 14.0)
DISTRACTOR_SITES = (
    Site("left middle occipital gyrus", (-32.0, -81.0, 16.0), 12.0),
    Site("right middle temporal gyrus", (57.0, -37.0, -1.0), 12.0),
    Site("left precentral gyrus", (-39.0, -6.0, 51.0), 12.0),
    Site("right lingual gyrus", (16.0, -67.0, -4.0), 12.0),
    Site("left superior medial frontal gyrus", (-5.0, 49.0, 31.0), 12.0),
    Site("right insula", (39.0, 6.0, 2.0), 12.0),
)
