"""How different two colors look: CIE L*a*b* and CIEDE2000."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def ciede2000(lab_a: NDArray[Any], lab_b: NDArray[Any]) -> NDArray[np.float64]:
    """Give the CIEDE2000 difference of two colors, for each pair.

    lab_a, lab_b: (..., 3) CIE L*a*b*, L in 0..100; they broadcast against each other. The result is >= 0, (...).
    Sharma, Wu and Dalal 2005, "The CIEDE2000 color-difference formula", equations 2 to 22, with kL = kC = kH = 1.
    """
    light_a, a_a, b_a = np.moveaxis(np.asarray(lab_a, np.float64), -1, 0)
    light_b, a_b, b_b = np.moveaxis(np.asarray(lab_b, np.float64), -1, 0)

    chroma_7 = ((np.hypot(a_a, b_a) + np.hypot(a_b, b_b)) / 2) ** 7
    stretch = 1.5 - 0.5 * np.sqrt(chroma_7 / (chroma_7 + 25.0**7))  # 1 + G: widens a* near gray
    a_a, a_b = a_a * stretch, a_b * stretch
    chroma_a, chroma_b = np.hypot(a_a, b_a), np.hypot(a_b, b_b)
    hue_a, hue_b = np.degrees(np.arctan2(b_a, a_a)) % 360, np.degrees(np.arctan2(b_b, a_b)) % 360

    gray = chroma_a * chroma_b == 0  # a gray has no hue, so no hue difference either
    turn = np.where(gray, 0.0, (hue_b - hue_a + 180) % 360 - 180)
    # Exactly opposite hues: the paper keeps the sign, the modulo loses it.
    turn = np.where(~gray & (np.abs(hue_b - hue_a) == 180), hue_b - hue_a, turn)
    delta_light = light_b - light_a
    delta_chroma = chroma_b - chroma_a
    delta_hue = 2 * np.sqrt(chroma_a * chroma_b) * np.sin(np.radians(turn) / 2)

    light, chroma, hue = (light_a + light_b) / 2, (chroma_a + chroma_b) / 2, (hue_a + hue_b) / 2
    apart = np.abs(hue_a - hue_b) > 180
    hue = np.where(apart, np.where(hue_a + hue_b < 360, hue + 180, hue - 180), hue)
    hue = np.where(gray, hue_a + hue_b, hue)
    weight = (
        1
        - 0.17 * np.cos(np.radians(hue - 30))
        + 0.24 * np.cos(np.radians(2 * hue))
        + 0.32 * np.cos(np.radians(3 * hue + 6))
        - 0.20 * np.cos(np.radians(4 * hue - 63))
    )
    rotation = -np.sin(np.radians(60 * np.exp(-(((hue - 275) / 25) ** 2)))) * 2 * np.sqrt(
        chroma**7 / (chroma**7 + 25.0**7)
    )
    term_light = delta_light / (1 + 0.015 * (light - 50) ** 2 / np.sqrt(20 + (light - 50) ** 2))
    term_chroma = delta_chroma / (1 + 0.045 * chroma)
    term_hue = delta_hue / (1 + 0.015 * chroma * weight)
    squared = term_light**2 + term_chroma**2 + term_hue**2 + rotation * term_chroma * term_hue
    return np.sqrt(np.maximum(squared, 0.0))


def lab_of(rgb: NDArray[Any]) -> NDArray[np.float64]:
    """Turn sRGB-encoded color (..., 3) in 0..1 into CIE L*a*b* (..., 3) for the D65 white of sRGB."""
    encoded = np.clip(np.asarray(rgb, np.float64), 0.0, 1.0)
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    # IEC 61966-2-1; each row is divided by its own sum, so that white is exactly (100, 0, 0).
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = linear @ (to_xyz / to_xyz.sum(axis=1, keepdims=True)).T
    bent = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = np.moveaxis(bent, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)
