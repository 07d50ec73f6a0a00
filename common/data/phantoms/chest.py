"""The chest as signed distances in mm: heart, great vessels, body, lungs, skeleton; the lungs' vessels.

The vessels of the lungs are balanced spanning trees (Cuntz et al. 2010, PLoS Comput Biol 6:e1000877): each
end point joins where the new piece and the way to the root are short. Radii follow Murray's law, parent^3 =
sum of children^3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.data.phantoms.anatomy import (
    Anatomy,
    Array,
    Grid,
    Points,
    Vector,
    blend,
    capsule,
    ellipsoid,
    profile,
    sum_of_products,
    tube,
    union,
)

MYO, LA, LV, RA, RV, AO, PA = 205, 420, 500, 550, 600, 820, 850
"""Label values of MM-WHS 2017: myocardium of the left ventricle, left atrium, left ventricle, right atrium,
right ventricle, ascending aorta (here with the arch), pulmonary artery (here up to the first branches)."""
HEART_LABELS = (MYO, LA, LV, RA, RV, AO, PA)

WALL = 2.5
"""Least thickness of the walls between two blood pools, mm."""

AORTA = [
    (3, 0, 118),
    (-5, -14, 134),
    (-13, -22, 156),
    (-9, -17, 178),
    (2, 0, 190),
    (15, 22, 187),
    (21, 37, 176),
]
AORTA_RADII = [11, 15, 15, 14.5, 13, 12.5, 12]
DESCENDING = [(21, 37, 176), (23, 41, 150), (21, 42, 90), (12, 38, 30), (4, 34, -30)]
OUTFLOW = [(6, -46, 108), (12, -42, 128), (14, -38, 140)]
PULMONARY = [(14, -38, 140), (17, -24, 156), (14, -8, 163)]
LEFT_PULMONARY = [(14, -8, 163), (32, 6, 166), (46, 20, 160)]
RIGHT_PULMONARY = [(14, -8, 163), (-12, 3, 158), (-36, 6, 154), (-50, 10, 148)]
SUPERIOR_CAVA = [(-25, -18, 260), (-26, -13, 200), (-26, -8, 138)]
INFERIOR_CAVA = [(-24, 2, 96), (-22, 8, 70), (-18, 14, -20)]
NECK_ARTERIES = [
    [(-6, -8, 190), (-14, -2, 212), (-24, -2, 260)],
    [(4, 4, 192), (10, 8, 215), (18, 8, 260)],
    [(13, 18, 190), (20, 22, 215), (34, 22, 260)],
]
PULMONARY_VEINS = [
    [(-20, 20, 124), (-44, 22, 118)],
    [(-20, 12, 132), (-44, 2, 138)],
    [(24, 20, 122), (46, 26, 114)],
    [(24, 12, 132), (46, 8, 142)],
]


@dataclass(frozen=True)
class Heart:
    """The heart as signed distances in mm; ``chambers`` maps MM-WHS values to shapes that do not overlap."""

    chambers: dict[int, Array]
    left_vessels: Array
    """Descending aorta, neck arteries and pulmonary veins: blood of the left heart, without a label."""
    right_vessels: Array
    """Superior and inferior vena cava."""
    outline: Array
    """Union of all of these: it displaces the lungs."""

    @property
    def labels(self) -> NDArray[np.uint16]:
        """The MM-WHS label map, 0 outside."""
        result = np.zeros_like(self.outline, np.uint16)
        for value, shape in self.chambers.items():
            result[shape < 0] = value
        return result


def build_heart(points: Points, anatomy: Anatomy, wobble: Array) -> Heart:
    """Builds the heart.

    Args:
        points: patient coordinates in mm, three arrays of one shape.
        wobble: smooth field in mm that makes the borders of the chambers irregular.
    """
    own = _heart_points(points, anatomy)
    chambers = _separated({value: shape + wobble for value, shape in _chambers(own).items()})
    left = union(
        tube(own, DESCENDING, [12, 12, 11.5, 11, 10.5]),
        *(tube(own, course, [6, 4.5, 4]) for course in NECK_ARTERIES),
        *(tube(own, course, [7, 5.5]) for course in PULMONARY_VEINS),
    )
    right = union(tube(own, SUPERIOR_CAVA, [8, 9, 10]), tube(own, INFERIOR_CAVA, [12, 12, 11]))
    return Heart(chambers, left, right, union(left, right, *chambers.values()))


def _heart_points(points: Points, anatomy: Anatomy) -> Points:
    """Returns coordinates in the standard heart: rotated, scaled and shifted about its middle."""
    centre = np.array([10.0, -12.0, 115.0])
    angle, size = np.deg2rad(anatomy.heart_turn), anatomy.heart_size
    turn = np.array([[np.cos(angle), np.sin(angle), 0], [-np.sin(angle), np.cos(angle), 0], [0, 0, 1]]) / size
    # The great vessels above the heart stay beside the trachea: the transform fades out with height.
    fade = np.clip((np.float32(185) - points[2]) / np.float32(60), 0, 1)
    fade = fade * np.clip((np.float32(32) - points[1]) / np.float32(20), 0, 1)
    moved = [p - np.float32(c + s) for p, c, s in zip(points, centre, anatomy.heart_shift, strict=True)]
    own = [
        sum_of_products(moved, row) + np.float32(c)
        for row, c in zip(turn.astype(np.float32), centre, strict=True)
    ]
    x, y, z = (fade * o + (1 - fade) * p for o, p in zip(own, points, strict=True))
    return x, y, z


def _axes(direction: tuple[float, float, float]) -> NDArray[np.float64]:
    """Returns three orthogonal unit vectors as rows, the first along ``direction``, the second horizontal."""
    first = np.array(direction) / np.linalg.norm(direction)
    second = np.cross([0.0, 0.0, 1.0], first)
    second /= np.linalg.norm(second)
    return np.stack([first, second, np.cross(first, second)])


def _chambers(points: Points) -> dict[int, Array]:
    """Returns the seven shapes, each as if it were alone, without walls between them."""
    long = _axes((0.72, -0.58, -0.38))
    middle = (34.0, -20.0, 101.0)
    along = sum_of_products(
        [p - np.float32(c) for p, c in zip(points, middle, strict=True)], long[0].astype(np.float32)
    )
    base = np.float32(-25) - along  # positive behind the plane of the valves
    left_ventricle = np.maximum(ellipsoid(points, middle, (40, 20, 22), long), base)
    myocardium = np.maximum(ellipsoid(points, middle, (50, 30.5, 32), long), base)
    right = _axes((0.78, -0.42, -0.34))
    right_ventricle = union(
        ellipsoid(points, (10, -44, 97), (44, 22, 28), right), tube(points, OUTFLOW, [15, 14, 13])
    )
    return {
        LV: left_ventricle,
        MYO: myocardium,
        RV: right_ventricle,
        AO: tube(points, AORTA, AORTA_RADII),
        PA: union(
            tube(points, PULMONARY, [13, 13.5, 12.5]),
            tube(points, LEFT_PULMONARY, [11, 10, 8.5]),
            tube(points, RIGHT_PULMONARY, [10, 9.5, 9, 7.5]),
        ),
        LA: union(
            ellipsoid(points, (0, 15, 124), (30, 17, 23)), ellipsoid(points, (24, 0, 136), (14, 9, 10))
        ),
        RA: union(
            ellipsoid(points, (-31, -14, 110), (20, 24, 30)), ellipsoid(points, (-14, -30, 124), (11, 9, 11))
        ),
    }


def _separated(alone: dict[int, Array]) -> dict[int, Array]:
    """Makes the shapes disjoint: later ones end a wall's thickness before earlier ones."""
    result = {LV: alone[LV], MYO: np.maximum(alone[MYO], -alone[LV])}
    occupied = alone[MYO]
    for value in (AO, PA, RV, LA, RA):
        gap = 0.0 if value == AO else WALL
        result[value] = np.maximum(alone[value], np.float32(gap) - occupied)
        occupied = np.minimum(occupied, alone[value])
    return result


Course = tuple[list[Vector], list[float]]
"""Points and radii in mm."""

TRACHEA: list[Vector] = [(0, 10, 270), (0, 16, 220), (1, 22, 166)]
RIGHT_BRONCHI: list[Course] = [
    ([(1, 22, 166), (-20, 24, 153), (-36, 24, 143)], [7.5, 6.5, 5.5]),
    ([(-24, 24, 151), (-46, 18, 164), (-58, 10, 180)], [4.5, 3.5, 2]),
    ([(-36, 24, 143), (-50, 2, 124), (-62, -22, 112)], [4, 3, 1.5]),
    ([(-36, 24, 143), (-48, 36, 116), (-60, 50, 84)], [5, 4, 2]),
]
LEFT_BRONCHI: list[Course] = [
    ([(1, 22, 166), (24, 26, 152), (42, 28, 144)], [7, 6, 5.5]),
    ([(40, 28, 145), (54, 10, 158), (64, -8, 174)], [4.5, 3, 1.5]),
    ([(42, 28, 144), (54, 42, 116), (64, 54, 86)], [5, 4, 2]),
]


def central_airways(points: Points) -> Array:
    """Returns the signed distance in mm to the trachea and the two main bronchi (outside the lungs)."""
    main = (tube(points, course, radii) for course, radii in (RIGHT_BRONCHI[0], LEFT_BRONCHI[0]))
    return union(tube(points, TRACHEA, [8.5, 8.5, 9]), *main)


def lobar_bronchi(points: Points) -> Array:
    """Returns the signed distance in mm to the bronchi inside the lungs."""
    return union(*(tube(points, course, radii) for course, radii in RIGHT_BRONCHI[1:] + LEFT_BRONCHI[1:]))


HEIGHTS = (0, 40, 90, 140, 180, 205, 222, 236)
"""Heights in mm at which the profiles below are given; 236 is the apex of the lungs."""
CAVITY_WIDTH = (84, 84, 83, 79, 69, 55, 38, 14)
CAVITY_DEPTH = (92, 92, 89, 83, 70, 55, 38, 12)
CAVITY_SIDE = (52, 52, 52, 50, 47, 45, 43, 42)
CAVITY_BACK = (4, 3, 2, 3, 8, 14, 20, 24)
BODY_WIDTH = (152, 155, 158, 161, 168, 178, 184, 186)
BODY_DEPTH = (110, 112, 112, 110, 107, 103, 99, 96)


@dataclass(frozen=True)
class Thorax:
    """The large shapes of the chest as signed distances in mm, negative inside."""

    body: Array
    cavity: Array
    diaphragm: Array
    mediastinum: Array
    lung: Array


def build_thorax(points: Points, anatomy: Anatomy, heart: Heart, wobble: Array) -> Thorax:
    """Builds the large shapes; ``wobble`` is a smooth field of unit variance that makes borders irregular."""
    cavity = _cavity(points) + wobble
    diaphragm = _diaphragm(points, anatomy) + np.float32(3) * wobble
    mediastinum = _mediastinum(points, heart) + np.float32(0.8) * wobble
    lung = np.maximum(np.maximum(cavity, diaphragm), -mediastinum)
    # Even a thin patient has skin, fat and muscle over the ribs.
    over_ribs = cavity - np.float32(15 + 0.3 * anatomy.fat)
    body = blend(_body(points, anatomy), over_ribs, 10) + wobble
    return Thorax(body, cavity, diaphragm, mediastinum, lung)


def _oval(u: Array, v: Array, power: float) -> Array:
    """Returns the level of a superellipse: 0 at the centre, 1 on the border."""
    return np.asarray(
        (np.abs(u) ** power + np.abs(v) ** power + np.float32(1e-6)) ** (1 / power), dtype=np.float32
    )


def _body(points: Points, anatomy: Anatomy) -> Array:
    x, y, z = points
    width = profile(z, HEIGHTS, BODY_WIDTH) + np.float32(anatomy.fat - 14)
    depth = profile(z, HEIGHTS, BODY_DEPTH) + np.float32(0.6 * (anatomy.fat - 14))
    # The back is flatter than the front and has a groove over the spine.
    groove = 5 * np.exp(-((x / 16) ** 2)) * (y > 0)
    return (_oval(x / width, (y - 6) / (depth - groove), 2.5) - 1) * np.minimum(width, depth)


def body_back(anatomy: Anatomy) -> float:
    """Returns where the back touches the table: y in patient mm at the middle of the chest."""
    return 6 + 112 + 0.6 * (anatomy.fat - 14)


def _cavity(points: Points) -> Array:
    """Returns the inside of the rib cage: two halves side by side, joined in front of the spine."""
    x, y, z = points
    width, depth = profile(z, HEIGHTS, CAVITY_WIDTH), profile(z, HEIGHTS, CAVITY_DEPTH)
    side, back = profile(z, HEIGHTS, CAVITY_SIDE), profile(z, HEIGHTS, CAVITY_BACK)
    v = (y - back) / depth
    right, left = (_oval((x - sign * side) / width, v, 2.3) for sign in (-1, 1))
    halves = blend((right - 1) * width, (left - 1) * width, 14)
    return np.maximum(halves, z - np.float32(HEIGHTS[-1]))


def _diaphragm(points: Points, anatomy: Anatomy) -> Array:
    """Returns two domes, the right one higher, that fall steeply to the side and the back."""
    x, y, z = points
    right = anatomy.diaphragm - 60 * ((x + 58) / 78) ** 2 - 62 * ((y + 22) / 80) ** 2
    left = anatomy.diaphragm - 14 - 60 * ((x - 58) / 78) ** 2 - 62 * ((y + 20) / 80) ** 2
    top = -blend(-right.astype(np.float32), -left.astype(np.float32), 20)
    slope = np.sqrt(1 + ((np.abs(x) - 58) / 50) ** 2 + ((y + 20) / 52) ** 2)
    return np.asarray((top - z) / slope, dtype=np.float32)


def _mediastinum(points: Points, heart: Heart) -> Array:
    x, y, z = points
    inflated = heart.outline - np.float32(3.5)
    spine = tube(points, [(0, 56, -40), (0, 55, 300)], [21, 20])
    # A plate from the oesophagus to the thymus, wide behind, thin where the lungs meet in front.
    half_width = profile(y, (-95, -70, -45, -5, 20, 45), (16, 3, 7, 19, 17, 14))
    half_width = half_width + profile(z, (150, 200, 236), (0, 3, 10))
    right_hilum, left_hilum = (ellipsoid(points, (s * 30, 12, 150), (17, 17, 24)) for s in (-1, 1))
    hilum = blend(right_hilum, left_hilum, 10)
    windpipe = central_airways(points) - np.float32(3)
    shape = blend(blend(inflated, np.abs(x) - half_width, 10), blend(spine, hilum, 12), 12)
    return blend(shape, windpipe, 6)


RIB_SPACING = 24.0
RIB_SLOPE, RIB_FALL = 0.42, 0.34
"""Slope of the ribs: mm down for each mm to the front, and to the side."""
TOP_RIB = 220.0
"""No rib above this height in mm."""
VERTEBRA_HEIGHT = 24.0
CARTILAGE_FRONT = -66.0
"""In front of this y (mm) a rib is cartilage."""


def ribs(points: Points, thorax: Thorax) -> Array:
    """Returns the signed distance in mm to the ribs: slanted rings in the wall of the cavity."""
    x, y, z = points
    height = z - np.float32(RIB_SLOPE) * y + np.float32(RIB_FALL) * np.abs(x)
    across = (np.mod(height, RIB_SPACING) - RIB_SPACING / 2) * 0.9
    depth = thorax.cavity - np.float32(6.5)
    shape = (np.sqrt((across / 6.2) ** 2 + (depth / 3.9) ** 2) - 1) * 3.9
    beside_spine = np.float32(14) - np.abs(x)
    return within(np.asarray(shape, dtype=np.float32), beside_spine, z - np.float32(TOP_RIB))


def within(shape: Array, *limits: Array) -> Array:
    """Returns the shape cut to where every limit is negative."""
    for limit in limits:
        shape = np.maximum(shape, limit)
    return np.asarray(shape, dtype=np.float32)


def cartilage(points: Points) -> Array:
    """Returns the share 0 to 1 by which a rib is cartilage rather than bone."""
    return np.clip((np.float32(CARTILAGE_FRONT) - points[1]) / 6, 0, 1)


def spine(points: Points) -> tuple[Array, Array]:
    """Returns the signed distances in mm to the vertebrae (discs included) and to the spinal canal."""
    x, y, z = points
    body = ellipsoid((x, y, np.zeros_like(x)), (0, 56, 0), (19, 15.5, 1e3))
    canal = ellipsoid((x, y, np.zeros_like(x)), (0, 78, 0), (10, 8.5, 1e3))
    ring = canal - np.float32(4.5)
    level = np.mod(z, VERTEBRA_HEIGHT) - VERTEBRA_HEIGHT / 2
    folded = (np.abs(x), y, np.asarray(level, dtype=np.float32))
    transverse = capsule(folded, (9, 80, 2), (36, 90, 6), (5.5, 4))
    process = capsule(folded, (0, 88, 3), (0, 106, -6), (4.5, 3.0))
    arch = np.maximum(union(ring, transverse, process), -canal)
    # Between two arches the canal is open to the back.
    arch = np.maximum(arch, np.abs(level) - np.float32(9.5))
    return within(union(body, arch), -canal), canal


def disc(points: Points) -> Array:
    """Returns the share 0 to 1 by which the spine is disc rather than vertebra at this height."""
    level = np.abs(np.mod(points[2], VERTEBRA_HEIGHT) - VERTEBRA_HEIGHT / 2)
    share = np.clip((level - np.float32(VERTEBRA_HEIGHT / 2 - 3)) / 2, 0, 1) * (points[1] < 72)
    return np.asarray(share, dtype=np.float32)


def sternum(points: Points) -> Array:
    """Returns the signed distance in mm to the sternum, which leans back towards the neck."""
    x, y, z = points
    front = profile(z, (0, 60, 140, 200, 225), (-88, -88, -84, -71, -60))
    half = profile(z, (60, 100, 170, 195, 215), (8, 14, 13, 24, 26))
    shape = (np.sqrt((x / half) ** 2 + ((y - front) / 6.5) ** 2) - 1) * 6.5
    return np.asarray(
        np.maximum(shape, np.maximum(np.float32(58) - z, z - np.float32(222))), dtype=np.float32
    )


def shoulder(points: Points, thorax: Thorax) -> Array:
    """Returns the signed distance in mm to the shoulder blades and collar bones."""
    x, y, z = points
    side = (np.abs(x), y, z)
    plate = np.abs(thorax.cavity - profile(z, (120, 190, 240), (22, 26, 34))) - np.float32(3.2)
    angle = np.degrees(np.arctan2(np.abs(x), y - 5))  # 0 at the back, 90 at the side
    limits = np.maximum(profile(z, (120, 180), (50, 38)) - angle, angle - profile(z, (120, 200), (56, 82)))
    blade = np.maximum(np.maximum(plate, limits), np.float32(128) - z)
    spur = capsule(side, (88, 86, 205), (150, 50, 238), (6, 8))
    collar = tube(side, [(20, -62, 214), (60, -66, 226), (120, -36, 240)], [8, 6.5, 6])
    return np.asarray(union(blade, spur, collar), dtype=np.float32)


BALANCE = 0.8
"""Weight of the way to the root against the length of the new piece."""
END_RADIUS = 0.6
"""Radius of the thinnest branch, mm."""
MAX_RADIUS = 5.5
CHUNK = 2**18
"""Voxels that are computed at once."""


@dataclass(frozen=True)
class Branches:
    """Straight pieces of vessel: starts and ends (N, 3) in mm, their radii (N,) in mm."""

    starts: NDArray[np.float64]
    ends: NDArray[np.float64]
    radii: NDArray[np.float64]


def grow_tree(root: NDArray[np.float64], targets: NDArray[np.float64]) -> Branches:
    """Joins ``targets`` (N, 3) in mm to a tree that starts at ``root`` (3,)."""
    order = np.argsort(np.linalg.norm(targets - root, axis=1))
    nodes = np.concatenate([root[None], targets[order]])  # (N + 1, 3)
    gaps = np.linalg.norm(nodes[:, None] - nodes, axis=2)  # (N + 1, N + 1)
    parents = np.zeros(len(nodes), np.int64)
    way = np.zeros(len(nodes))
    for new in range(1, len(nodes)):
        parents[new] = np.argmin(gaps[new, :new] + BALANCE * way[:new])
        way[new] = way[parents[new]] + gaps[new, parents[new]]
    radii = _murray_radii(parents)
    return Branches(nodes[parents[1:]], nodes[1:], radii[1:])


def _murray_radii(parents: NDArray[np.int64]) -> NDArray[np.float64]:
    cubes = np.zeros(len(parents))
    for node in range(len(parents) - 1, 0, -1):  # children come after their parents
        cubes[node] = max(cubes[node], END_RADIUS**3)
        cubes[parents[node]] += cubes[node]
    return np.minimum(np.cbrt(cubes), MAX_RADIUS)


def paint_branches(grid: Grid, branches: Branches, slab: float) -> Array:
    """Returns the share 0 to 1 of every voxel that lies in a vessel; ``branches`` in grid mm.

    Args:
        slab: thickness of a slice in mm: what lies within it adds to the slice, as in a scanner.
    """
    axes = [grid.axis(number) for number in range(3)]
    width = float(min(grid.spacing[:2]))
    margins = branches.radii[:, None] + width + np.array([0.0, 0.0, slab / 2])  # (N, 3)
    low, high = np.minimum(branches.starts, branches.ends), np.maximum(branches.starts, branches.ends)
    bounds = zip(axes, (low - margins).T, (high + margins).T, strict=True)
    boxes = np.array([[np.searchsorted(axis, a), np.searchsorted(axis, b)] for axis, a, b in bounds])
    first, extents = boxes[:, 0].T, (boxes[:, 1] - boxes[:, 0]).T  # (N, 3) each
    result = np.zeros(grid.shape, np.float32, order="F")
    flat = result.reshape(-1, order="F")  # a view
    for pieces in _chunks(extents.prod(axis=1), branches.radii < 0.5 * width):
        voxels, owner = _voxels_of(first[pieces], extents[pieces])
        share = _coverage(axes, branches, pieces[owner], voxels, width, slab)
        np.maximum.at(flat, np.ravel_multi_index(tuple(voxels.T), grid.shape, order="F"), share)
    return result


def _chunks(counts: NDArray[np.int64], thin: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """Splits the pieces with voxels into parts of about `CHUNK` voxels, each all thin or all not."""
    groups = [np.flatnonzero(kind & (counts > 0)) for kind in (thin, ~thin)]
    return [
        part
        for group in groups
        for part in np.split(group, np.flatnonzero(np.diff(np.cumsum(counts[group]) // CHUNK)) + 1)
        if len(part)
    ]


def _voxels_of(
    first: NDArray[np.int64], extents: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns all voxels (V, 3) of boxes with first voxels and extents (N, 3), and the box (V,) of each."""
    counts = extents.prod(axis=1)
    owner = np.repeat(np.arange(len(counts)), counts)
    rest = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)  # place within the box
    sides = extents[owner]
    steps = np.stack(
        [rest % sides[:, 0], rest // sides[:, 0] % sides[:, 1], rest // (sides[:, 0] * sides[:, 1])]
    )
    return first[owner] + steps.T, owner


def _coverage(
    axes: list[Array],
    branches: Branches,
    pieces: NDArray[np.int64],
    voxels: NDArray[np.int64],
    width: float,
    slab: float,
) -> Array:
    """Returns the share (V,) of each voxel (V, 3) that its piece (V,) covers.

    A piece thinner than a voxel is painted one voxel wide with a lower density.
    """
    starts, radii = branches.starts, branches.radii
    ab = (branches.ends - starts).astype(np.float32)
    squared = np.array([max(float(vector @ vector), 1e-6) for vector in ab], np.float32)[pieces]
    ax, ay, az = ab[pieces].T
    px, py, pz = (
        axis[index] - start
        for axis, index, start in zip(axes, voxels.T, starts.astype(np.float32)[pieces].T, strict=True)
    )
    along = np.clip((px * ax + py * ay + pz * az) / squared, 0, 1)
    gap_z = np.maximum(np.abs(pz - along * az) - np.float32(slab / 2), 0)
    gap = np.sqrt((px - along * ax) ** 2 + (py - along * ay) ** 2 + gap_z**2)
    strength = np.array([min(1.0, 2 * radius / width) ** 1.2 if slab > 0 else 1.0 for radius in radii])
    shown: float | NDArray[np.float64] = 0.5 * width if radii[pieces[0]] < 0.5 * width else radii[pieces]
    return np.asarray(np.clip(0.5 + (shown - gap) / width, 0, 1) * strength[pieces], dtype=np.float32)
