"""Curves and turned solids, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from colorcli.train.drawings.curves import capsule, limb, rotated, spline
from colorcli.train.drawings.lathe import Lathe

SQUARE = [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)]


def cylinder(width: float = 1.0, depth: float = 1.0, center: float = 0.0) -> Lathe:
    heights = np.linspace(0.0, 2.0, 5)
    return Lathe(heights, np.full(5, width), np.full(5, depth), np.full(5, center))


def test_a_spline_passes_through_its_control_points():
    curve = spline(SQUARE, closed=True, steps=5)
    assert np.allclose(curve[::5], SQUARE)


def test_a_spline_without_roundness_has_straight_edges():
    curve = spline(SQUARE[:3], roundness=0.0, steps=4)
    assert np.allclose(curve[:5, 1], 0) and np.allclose(curve[4:, 0], 1)


def test_a_straight_limb_is_as_wide_as_asked_everywhere():
    left, right = limb([(0, 0), (0, -1), (0, -2)], [0.1] * 5)
    assert np.allclose(np.abs(left[:, 0]), 0.1) and np.allclose(np.abs(right[:, 0]), 0.1)
    assert (np.sign(left[:, 0]) != np.sign(right[:, 0])).all()


def test_the_inner_side_of_a_bent_limb_does_not_cross_itself():
    left, right = limb([(0, 0), (0, -1), (1, -1)], [0.1] * 5)
    inner = min((left, right), key=lambda side: float(np.hypot(*np.diff(side, axis=0).T).sum()))
    assert np.isclose(np.abs(inner - [0.1, -0.9]).sum(1).min(), 0, atol=1e-9)
    assert (np.diff(inner[:, 0]) >= -1e-9).all() and (np.diff(inner[:, 1]) <= 1e-9).all()


def test_a_finger_ends_one_radius_past_its_last_point():
    assert np.isclose(capsule((0, 0), (0, 1), 0.1, 0.1)[:, 1].max(), 1.1)


def test_turning_by_a_right_angle_takes_x_to_y():
    assert np.allclose(rotated(np.array([[1.0, 0.0]]), np.pi / 2), [[0.0, 1.0]])


@pytest.mark.parametrize("yaw", [0.0, 0.7, np.pi / 2, 2.5, np.pi])
def test_a_round_solid_looks_the_same_from_every_side(yaw):
    assert np.allclose(cylinder().side([0.5, 1.5], yaw, 1.0)[:, 0], 1.0)


def test_a_flat_solid_is_as_wide_as_it_is_deep_seen_from_its_side():
    solid = cylinder(width=2.0, depth=0.5)
    assert np.isclose(solid.side([1.0], 0.0, 1.0)[0, 0], 2.0)
    assert np.isclose(solid.side([1.0], np.pi / 2, 1.0)[0, 0], 0.5)


@pytest.mark.parametrize("yaw", [0.0, 0.4, 1.2])
def test_a_spot_of_the_surface_is_where_turning_it_in_space_takes_it(yaw):
    solid, theta = cylinder(width=2.0, depth=0.7), np.array([-0.3, 0.1, 0.25])
    x, z = 2.0 * np.sin(theta), 0.7 * np.cos(theta)
    assert np.allclose(solid.place(theta, 1.0, yaw)[:, 0], x * np.cos(yaw) + z * np.sin(yaw))


def test_a_spot_turned_out_of_sight_lies_on_the_silhouette():
    solid = cylinder(width=2.0, depth=0.7)
    yaw = 2.0
    assert solid.facing(0.3, 1.0, yaw) < 0
    assert np.isclose(solid.place(np.array([0.3]), 1.0, yaw)[0, 0], solid.side([1.0], yaw, 1.0)[0, 0])
