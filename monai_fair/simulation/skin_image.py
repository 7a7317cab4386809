"""Draw one dermoscopy-like photograph of a lesion, as arrays over the whole pixel grid.

Coordinates are a unit frame: x and y run from -1 to 1 over the image. What belongs to the lesion (outline,
colours, skin tone) comes from one seed and what belongs to the photograph (view, hair, light, noise) from
another, so that two photographs of a lesion show the same lesion.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

_LIGHT_SKIN = np.array([0.93, 0.78, 0.70], np.float32)
_TAN_SKIN = np.array([0.82, 0.62, 0.50], np.float32)
_LIGHT_BROWN = np.array([0.62, 0.42, 0.29], np.float32)
_DARK_BROWN = np.array([0.38, 0.23, 0.15], np.float32)
# Black, blue-grey, red and regression white: the colours of the dermoscopic ABCD rule beside brown.
_BLOB_COLOURS = np.array([[0.13, 0.09, 0.08], [0.36, 0.38, 0.46], [0.68, 0.26, 0.24], [0.86, 0.76, 0.72]], np.float32)
_HAIR = np.array([0.16, 0.11, 0.08], np.float32)
_TINT = np.array([0.09, 0.0, -0.09], np.float32)  # relative change per unit of cue
_NOISE_SD = 0.02
_BLOBS = 7
_HARMONICS = np.arange(2, 10, dtype=np.float32)


@dataclass(frozen=True)
class SkinPhoto:
    """What one photograph shows.

    Attributes:
        irregularity: 0 for a smooth outline, 1 for a ragged one.
        variegation: 0 for one brown, 1 for strong blobs of other colours.
        contrast: opacity of the lesion over the skin, in [0, 1].
        cue: tint of the photograph; positive is warm, negative is cool.
        lesion_seed: the lesion's own randomness, shared by its photographs.
        photo_seed: this photograph's own randomness.
    """

    irregularity: float
    variegation: float
    contrast: float
    cue: float
    lesion_seed: np.random.SeedSequence
    photo_seed: np.random.SeedSequence


def draw_photo(photo: SkinPhoto, *, size: int) -> npt.NDArray[np.uint8]:
    """Return the photograph as RGB, shape ``(size, size, 3)``.

    Args:
        photo: what to show; equal values give equal pixels.
        size: side in pixels.
    """
    lesion = np.random.default_rng(photo.lesion_seed)
    camera = np.random.default_rng(photo.photo_seed)
    axis = np.linspace(-1.0, 1.0, size, dtype=np.float32)
    x, y = axis[np.newaxis, :], axis[:, np.newaxis]

    tone = np.float32(lesion.beta(1.5, 2.5))
    skin = (1.0 - tone) * _LIGHT_SKIN + tone * _TAN_SKIN
    image = skin * (1.0 + _skin_texture(x, y, camera))[..., np.newaxis]

    u, v = _lesion_frame(x, y, camera)
    edge = float(camera.uniform(0.035, 0.08))
    cover = _outline(u, v, photo.irregularity, edge, lesion) * np.float32(photo.contrast)
    image += cover[..., np.newaxis] * (_lesion_colour(u, v, photo.variegation, lesion) - image)

    hair = _hair(x, y, size, camera)[..., np.newaxis]
    image += hair * (_HAIR - image)
    image *= _light(x, y, camera)[..., np.newaxis] * (1.0 + np.float32(photo.cue) * _TINT)
    image += np.float32(_NOISE_SD) * camera.standard_normal(image.shape, dtype=np.float32)
    return np.asarray(np.clip(255.0 * image + 0.5, 0.0, 255.0), dtype=np.uint8)


def _waves(x: Array, y: Array, frequency: float, count: int, generator: np.random.Generator) -> Array:
    """Smooth noise of mean 0 and variance 1: plane waves of about ``frequency`` cycles per unit."""
    angle = generator.uniform(0.0, 2.0 * np.pi, count)
    cycles = 2.0 * np.pi * frequency * generator.uniform(0.6, 1.4, count)
    phase = generator.uniform(0.0, 2.0 * np.pi, count)
    kx, ky, shift = (
        value.astype(np.float32)[:, np.newaxis, np.newaxis]
        for value in (cycles * np.cos(angle), cycles * np.sin(angle), phase)
    )
    waves = np.cos(kx * x + ky * y + shift)
    return np.asarray(np.sqrt(np.float32(2.0 / count)) * waves.sum(axis=0), dtype=np.float32)


def _skin_texture(x: Array, y: Array, generator: np.random.Generator) -> Array:
    slow = _waves(x, y, 0.5, 4, generator)
    fine = _waves(x, y, 6.0, 8, generator)
    return np.asarray(0.025 * slow + 0.012 * fine, dtype=np.float32)


def _lesion_frame(x: Array, y: Array, generator: np.random.Generator) -> tuple[Array, Array]:
    """Coordinates in which the lesion is centred, upright, and has a radius of about 1."""
    turn = generator.uniform(0.0, 2.0 * np.pi)
    centre_x, centre_y = generator.uniform(-0.18, 0.18, 2)
    radius = generator.uniform(0.42, 0.62)
    cos, sin = np.float32(np.cos(turn) / radius), np.float32(np.sin(turn) / radius)
    x, y = x - np.float32(centre_x), y - np.float32(centre_y)
    return cos * x + sin * y, cos * y - sin * x


def _outline(u: Array, v: Array, irregularity: float, edge: float, generator: np.random.Generator) -> Array:
    """Soft mask of the lesion: an ellipse whose radius is a random Fourier series of the angle."""
    aspect = np.float32(generator.uniform(0.75, 1.0))
    strength = generator.standard_normal(len(_HARMONICS)).astype(np.float32)
    phase = generator.uniform(0.0, 2.0 * np.pi, len(_HARMONICS)).astype(np.float32)
    # A benign outline has its few low harmonics; a malignant one keeps the high ones, too.
    strength *= _HARMONICS ** np.float32(-1.5 + 1.2 * irregularity)
    strength *= np.float32((0.03 + 0.07 * irregularity) / np.sqrt(0.5 * np.sum(strength**2)))
    # Noise over the plane, not over the angle, breaks the star that a Fourier series alone would give.
    notches = np.float32(0.02 + 0.1 * irregularity) * _waves(u, v, 0.9, 5, generator)
    angle, radius = np.arctan2(v, u), np.hypot(u, v / aspect)
    ripple = sum(
        size * np.cos(harmonic * angle + shift)
        for size, harmonic, shift in zip(strength, _HARMONICS, phase, strict=True)
    )
    outside = np.clip((radius - 1.0 - ripple - notches) / edge, -30.0, 30.0)
    return np.asarray(1.0 / (1.0 + np.exp(outside)), dtype=np.float32)


def _lesion_colour(u: Array, v: Array, variegation: float, generator: np.random.Generator) -> Array:
    """Colour of the lesion at each pixel, shape ``(H, W, 3)``."""
    depth = np.float32(generator.uniform(0.1, 0.7))
    brown = (1.0 - depth) * _LIGHT_BROWN + depth * _DARK_BROWN
    mottle = 0.06 * _waves(u, v, 0.7, 5, generator)
    # Three sets of lines at 60 degrees, bent by slow noise, make the holes of a pigment network.
    bend = 0.35 * _waves(u, v, 0.8, 4, generator)
    lines = [np.cos(14.0 * (np.cos(a) * u + np.sin(a) * v) + 3.0 * bend) for a in np.arange(3) * np.pi / 3.0]
    network = np.float32(generator.uniform(0.02, 0.06)) * sum(lines)
    colour = brown * (1.0 + mottle + network)[..., np.newaxis]
    for _ in range(_BLOBS):
        distance, angle = 0.95 * np.sqrt(generator.uniform()), generator.uniform(0.0, 2.0 * np.pi)
        width = generator.uniform(0.12, 0.38)
        tint = _BLOB_COLOURS[generator.choice(len(_BLOB_COLOURS), p=[0.35, 0.25, 0.2, 0.2])]
        away = (u - np.float32(distance * np.cos(angle))) ** 2 + (v - np.float32(distance * np.sin(angle))) ** 2
        opacity = np.float32(variegation * generator.uniform(0.4, 0.9))
        weight = opacity * np.exp(-away / np.float32(2.0 * width**2))
        colour += weight[..., np.newaxis] * (tint - colour)
    return np.asarray(colour, dtype=np.float32)


def _hair(x: Array, y: Array, size: int, generator: np.random.Generator) -> Array:
    """Opacity of hairs: each is a parabola of about one pixel's width; many photographs have none."""
    opacity = np.zeros((y.shape[0], x.shape[1]), dtype=np.float32)
    for _ in range(generator.poisson(generator.exponential(2.5))):
        angle, bow = generator.uniform(0.0, 2.0 * np.pi), np.float32(generator.uniform(-0.5, 0.5))
        offset, along, reach = generator.uniform([-1.0, -0.5, 0.3], [1.0, 0.5, 1.2]).astype(np.float32)
        width = np.float32(generator.uniform(0.5, 1.0) * 2.0 / size + 0.004)
        cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        s, t = cos * x + sin * y - along, cos * y - sin * x - offset
        gap = (t - bow * s**2) / np.sqrt(1.0 + 4.0 * bow**2 * s**2)
        stroke = np.exp(-((gap / width) ** 2)) * (np.abs(s) < reach)
        opacity = np.maximum(opacity, np.float32(generator.uniform(0.5, 0.9)) * stroke)
    return opacity


def _light(x: Array, y: Array, generator: np.random.Generator) -> Array:
    """Exposure and the dark corners of a dermatoscope's round field of view."""
    gain, corners, tilt = generator.uniform([0.9, 0.05, 0.0], [1.05, 0.35, 0.06])
    angle = generator.uniform(0.0, 2.0 * np.pi)
    slope = tilt * (np.cos(angle) * x + np.sin(angle) * y)
    return np.asarray(gain * (1.0 + slope) * (1.0 - corners * ((x**2 + y**2) / 2.0) ** 2), dtype=np.float32)
