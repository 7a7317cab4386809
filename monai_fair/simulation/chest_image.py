"""Draw one frontal chest X-ray, as arrays over the whole pixel grid.

Coordinates are a unit frame: x runs from -1 to 1 to the image's right, which is the patient's left, and y from -1 to
1 downwards. What belongs to the patient (size of the chest, slope of the ribs, tissue) comes from one seed and what
belongs to the image (position, exposure, noise) from another, so that two studies of a patient show the same chest.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

# Share of the thorax that the heart takes; above a half is the textbook's sign of an enlarged one.
_RATIO, _RATIO_PER_SD, _RATIO_LIMITS = 0.465, 0.036, (0.34, 0.68)
# Height of the fluid in the angle between the diaphragm and the ribs; below 0 there is none.
_FLUID, _FLUID_PER_SD, _FLUID_LIMITS = 0.04, 0.075, (0.0, 0.45)
_BREAST, _BREAST_PER_CUE = 0.05, 0.07  # brightness
_KNOB, _KNOB_PER_CUE = 0.075, 0.035  # radius of the aortic knob
_RIB, _RIB_PER_CUE = 0.075, -0.035  # brightness: bones lose contrast with age
_LOG_GAMMA_PER_CUE, _LOG_GAMMA_SD = 0.20, 0.04
_NOISE_SD = 0.025


@dataclass(frozen=True)
class ChestView:
    """What one image shows.

    Attributes:
        heart: width of the heart in standard deviations from the mean of those without a finding.
        fluid: height of pleural fluid, in the same unit.
        sex_cue: brightness of the breasts' shadow; positive is brighter.
        race_cue: exponent of the grey values of the whole image; positive is darker.
        age_cue: size of the aortic knob and loss of contrast of the bones; positive is older.
        patient_seed: the patient's own randomness, shared by the images.
        image_seed: this image's own randomness.
    """

    heart: float
    fluid: float
    sex_cue: float
    race_cue: float
    age_cue: float
    patient_seed: np.random.SeedSequence
    image_seed: np.random.SeedSequence


@dataclass(frozen=True)
class _Chest:
    """A patient's chest in the unit frame: pixels, where the diaphragm and its outer angle lie, depth from the wall."""

    x: Array
    y: Array
    half_width: float
    diaphragm: Array
    angle: float
    wall: Array


def draw_chest(view: ChestView, *, size: int) -> npt.NDArray[np.uint8]:
    """Return the image in grey, shape ``(size, size)``; bright is what lets little through, as in a radiograph.

    Args:
        view: what to show; equal values give equal pixels.
        size: side in pixels.
    """
    patient = np.random.default_rng(view.patient_seed)
    camera = np.random.default_rng(view.image_seed)
    x, y = _frame(size, camera)
    chest = _chest(x, y, patient)
    lung = _lungs(chest, view.fluid, patient)
    image = _tissue(chest, patient)
    image -= lung * (0.44 + 0.035 * _waves(x, y, 3.0, 10, patient))
    image += _bones(chest, view.age_cue, patient)
    image += _middle(chest, lung, view, patient)
    image += _breasts(chest, view.sex_cue, patient)
    image *= _body(x, y)
    return _exposed(image, view.race_cue, camera)


def _frame(size: int, camera: np.random.Generator) -> tuple[Array, Array]:
    """Coordinates of the pixels, both of shape ``(size, size)``, for a patient who stands a little askew."""
    axis = np.linspace(-1.0, 1.0, size, dtype=np.float32)
    turn, scale = camera.normal(0.0, 0.025), camera.uniform(0.96, 1.05)
    shift_x, shift_y = camera.uniform(-0.05, 0.05, 2)
    cos, sin = np.float32(np.cos(turn) / scale), np.float32(np.sin(turn) / scale)
    across, down = axis[np.newaxis, :] - np.float32(shift_x), axis[:, np.newaxis] - np.float32(shift_y)
    return cos * across + sin * down, cos * down - sin * across


def _chest(x: Array, y: Array, patient: np.random.Generator) -> _Chest:
    half_width, height = float(patient.uniform(0.72, 0.82)), float(patient.uniform(0.95, 1.05))
    level, dome, tilt = patient.uniform([0.42, 0.16, 0.02], [0.54, 0.24, 0.08])
    away = np.abs(x)
    # A dome in each half: lowest where it meets the ribs; the one over the liver stands higher.
    diaphragm = level + dome * ((away / half_width - 0.42) / 0.58) ** 2 + tilt * np.tanh(4.0 * x)
    above = np.clip(0.22 - y, 0.0, None) / height
    wall = half_width * np.sqrt(np.clip(1.0 - above**2.2, 0.0, None)) - away
    return _Chest(x, y, half_width, _float(diaphragm), float(level + dome), _float(wall))


def _lungs(chest: _Chest, fluid: float, patient: np.random.Generator) -> Array:
    """Opacity of air: inside of the ribs, above the diaphragm and the fluid."""
    height = float(np.clip(_FLUID + _FLUID_PER_SD * fluid, *_FLUID_LIMITS))
    share = np.where(chest.x > 0, 1.0, patient.uniform(0.4, 1.0)).astype(np.float32)
    # Fluid climbs along the wall: a concave upper border, the meniscus.
    climb = 0.7 + 0.8 * np.exp(-np.clip(chest.wall, 0.0, None) / 0.08)
    floor = np.minimum(chest.diaphragm, chest.angle - height * share * climb)
    air = _inside(chest.wall, 0.05) * _inside(floor - chest.y, 0.05)
    middle = 0.12 + 0.03 * _inside(chest.y + 0.1, 0.8)
    return _float(air * _inside(np.abs(chest.x) - middle, 0.08))


def _tissue(chest: _Chest, patient: np.random.Generator) -> Array:
    """Brightness without air and bones: more where the body is thicker."""
    thick, slow = patient.uniform(0.60, 0.68), _waves(chest.x, chest.y, 0.5, 4, patient)
    return _float(thick + 0.10 * _inside(chest.y - chest.diaphragm, 0.15) + 0.02 * slow)


def _bones(chest: _Chest, age_cue: float, patient: np.random.Generator) -> Array:
    """Ribs at the back, fainter ones at the front, collar bones, and the spine."""
    contrast = max(_RIB + _RIB_PER_CUE * age_cue, 0.01)
    start, slope, distance = patient.uniform([0.0, 0.30, 0.165], [1.0, 0.42, 0.195])
    away = np.abs(chest.x)
    back = np.cos(2.0 * np.pi * ((chest.y - slope * away**1.6 + 0.10 * away) / distance + start))
    front = np.cos(2.0 * np.pi * ((chest.y + 0.55 * away) / (1.25 * distance) + 1.7 * start))
    ribs = np.clip(back, 0.0, None) ** 0.7 - 0.35 + 0.4 * np.clip(front, 0.0, None)
    cage = _inside(chest.wall + 0.04, 0.06) * _inside(0.62 - chest.y, 0.5)
    lift = patient.uniform(0.10, 0.20)
    collar = np.exp(-(((chest.y + 0.66 + lift * (away - 0.35)) / 0.035) ** 2)) * _inside(away - 0.08, 0.08)
    joints = 0.85 + 0.15 * np.cos(2.0 * np.pi * chest.y / 0.14)
    spine = np.exp(-((chest.x / 0.085) ** 2)) * joints
    return _float(contrast * (ribs * cage + 1.3 * collar * _inside(0.8 - away, 0.2) + 1.2 * spine))


def _middle(chest: _Chest, lung: Array, view: ChestView, patient: np.random.Generator) -> Array:
    """Heart, aortic knob and the vessels at the roots of the lungs, where they stand before air."""
    ratio = float(np.clip(_RATIO + _RATIO_PER_SD * view.heart, *_RATIO_LIMITS))
    width, lean = 2.0 * ratio * chest.half_width, patient.uniform(0.66, 0.72)
    centre_y, half_height = patient.uniform(0.20, 0.27), patient.uniform(0.30, 0.36)
    # Two thirds of the heart lie on the patient's left.
    centre_x = width * (lean - 0.5)
    across, down = chest.x - np.float32(centre_x), chest.y - np.float32(centre_y)
    across = across - 0.18 * down
    heart = _inside(1.0 - np.hypot(across / (0.5 * width), down / half_height), 0.10)
    radius = max(_KNOB + _KNOB_PER_CUE * view.age_cue, 0.03)
    knob = _inside(radius - np.hypot(chest.x - np.float32(0.10 + 0.5 * radius), chest.y + 0.30), 0.035)
    root = np.exp(-(((np.abs(chest.x) - 0.24) / 0.10) ** 2) - ((chest.y - 0.02) / 0.17) ** 2)
    vessels = root * (0.10 + 0.06 * _waves(chest.x, chest.y, 5.0, 8, patient))
    return _float(lung * (0.40 * np.maximum(heart, 0.75 * knob) + (1.0 - heart) * vessels))


def _breasts(chest: _Chest, sex_cue: float, patient: np.random.Generator) -> Array:
    """A soft shadow over the lower lungs, with an edge below."""
    bright = max(_BREAST + _BREAST_PER_CUE * sex_cue, 0.0)
    place_x, place_y, radius = patient.uniform([0.40, 0.22, 0.30], [0.48, 0.32, 0.38])
    far = np.hypot(np.abs(chest.x) - np.float32(place_x), chest.y - np.float32(place_y)) / radius
    shade = (0.3 + 0.7 * _inside(chest.y - place_y, 0.6)) * (1.0 - 0.6 * _inside(chest.y - chest.diaphragm, 0.1))
    return _float(bright * shade * _inside(1.0 - far, 0.2))


def _body(x: Array, y: Array) -> Array:
    """1 inside of the body: trunk, shoulders and neck; a little above 0 in the air around it."""
    half = 0.26 + 0.70 * _inside(y + 0.74, 0.30)
    return _float(0.04 + 0.96 * _inside(half - np.abs(x), 0.06))


def _exposed(image: Array, race_cue: float, camera: np.random.Generator) -> npt.NDArray[np.uint8]:
    gain, gamma = camera.uniform(0.96, 1.04), _LOG_GAMMA_PER_CUE * race_cue + camera.normal(0.0, _LOG_GAMMA_SD)
    image = np.clip(np.float32(1.15 * gain) * image, 0.0, 1.0) ** np.float32(np.exp(gamma))
    image += np.float32(_NOISE_SD) * camera.standard_normal(image.shape, dtype=np.float32)
    return np.asarray(np.clip(255.0 * image + 0.5, 0.0, 255.0), dtype=np.uint8)


def _inside(depth: npt.NDArray[np.floating[Any]], edge: float) -> Array:
    """0 to 1 as ``depth`` goes from ``-edge / 2`` to ``edge / 2``, without a corner."""
    t = np.clip(depth / np.float32(edge) + 0.5, 0.0, 1.0)
    return _float(t * t * (3.0 - 2.0 * t))


def _waves(x: Array, y: Array, frequency: float, count: int, generator: np.random.Generator) -> Array:
    """Smooth noise of mean 0 and variance 1: plane waves of about ``frequency`` cycles per unit."""
    angle, phase = generator.uniform(0.0, 2.0 * np.pi, (2, count))
    cycles = 2.0 * np.pi * frequency * generator.uniform(0.6, 1.4, count)
    kx, ky = (_float(cycles * part(angle)) for part in (np.cos, np.sin))
    total = sum(np.cos(a * x + b * y + c) for a, b, c in zip(kx, ky, _float(phase), strict=True))
    return _float(np.sqrt(2.0 / count) * total)


def _float(values: npt.ArrayLike) -> Array:
    return np.asarray(values, dtype=np.float32)
