"""Digits as a person draws them on the explorer's canvas: strokes of a round brush, unlike each other."""

import numpy as np
from PIL import Image, ImageDraw
from scipy.interpolate import CubicSpline

SIDE = 280  # of the canvas
WIDTHS = 10, 24  # of the brush
OVAL = [(0.55, 0), (0.15, 0.2), (0, 0.55), (0.2, 0.9), (0.5, 1), (0.85, 0.8), (1, 0.45), (0.85, 0.1), (0.5, 0.02)]
# for each digit ways to write it; a way is a list of curves through points (x, y) in the unit square, y downwards
WAYS = {
    0: [[OVAL]],
    1: [[[(0.5, 0), (0.5, 0.5), (0.5, 1)]], [[(0.25, 0.2), (0.5, 0)], [(0.5, 0), (0.5, 1)]]],
    2: [[[(0.05, 0.25), (0.4, 0), (0.9, 0.2), (0.65, 0.6), (0.05, 1)], [(0.05, 1), (1, 0.97)]]],
    3: [
        [
            [(0.05, 0.12), (0.5, 0), (0.88, 0.22), (0.4, 0.47)],
            [(0.4, 0.47), (0.95, 0.68), (0.6, 0.98), (0.02, 0.88)],
        ]
    ],
    4: [[[(0.3, 0), (0.02, 0.55)], [(0.02, 0.55), (1, 0.55)], [(0.75, 0.1), (0.72, 1)]]],
    5: [
        [
            [(0.9, 0), (0.2, 0.02)],
            [(0.2, 0.02), (0.12, 0.45)],
            [(0.12, 0.45), (0.6, 0.4), (0.92, 0.68), (0.6, 0.98), (0.02, 0.9)],
        ]
    ],
    6: [[[(0.75, 0), (0.25, 0.3), (0.05, 0.7), (0.4, 1), (0.85, 0.78), (0.6, 0.52), (0.1, 0.68)]]],
    7: [
        [[(0, 0.03), (1, 0)], [(1, 0), (0.6, 0.5), (0.4, 1)]],
        [[(0, 0.03), (1, 0)], [(1, 0), (0.4, 1)]],
        [[(0, 0.03), (1, 0)], [(1, 0), (0.4, 1)], [(0.35, 0.5), (0.9, 0.5)]],
    ],
    8: [
        [
            [(0.85, 0.12), (0.45, 0), (0.15, 0.22), (0.5, 0.48), (0.9, 0.78), (0.5, 1), (0.1, 0.8), (0.5, 0.48)],
            [(0.5, 0.48), (0.85, 0.25), (0.8, 0.08)],
        ]
    ],
    9: [[[(0.85, 0.2), (0.45, 0), (0.08, 0.28), (0.4, 0.52), (0.85, 0.22)], [(0.85, 0.22), (0.8, 0.6), (0.6, 1)]]],
}


def digits(n_each: int, seed: int = 0) -> list[tuple[int, Image.Image]]:
    """Return (digit, canvas) n_each times for each digit; brushes take turns, and all else varies at random."""
    random = np.random.default_rng(seed)
    return [
        (digit, draw(_written(ways[i % len(ways)], random), WIDTHS[(digit + i) % 2]))
        for digit, ways in WAYS.items()
        for i in range(n_each)
    ]


def draw(strokes: list[np.ndarray], width: float) -> Image.Image:
    """Return a canvas, RGBA, with strokes [(N, 2)] of a round brush, in pixels."""
    fine = 4
    ink = Image.new("L", (fine * SIDE, fine * SIDE))
    pen, radius = ImageDraw.Draw(ink), fine * width / 2
    for stroke in strokes:
        points = [tuple(fine * point) for point in stroke]
        pen.line(points, 255, round(fine * width), joint="curve")
        for x, y in points:
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), 255)
    canvas = Image.new("RGBA", (SIDE, SIDE))
    canvas.putalpha(ink.reduce(fine))
    return canvas


def _written(way: list[list[tuple[float, float]]], random: np.random.Generator) -> list[np.ndarray]:
    """Return the strokes of a way to write a digit, at a random place, size and slant, in pixels."""
    height, slant, narrow, turn = random.uniform((80, -0.1, 0.5, -0.1), (240, 0.35, 0.8, 0.1))
    shape = (
        height
        * np.array([[narrow, -slant], [0, 1]])
        @ np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    )
    jitter = {point: random.normal(0, 0.025, 2) for stroke in way for point in stroke}  # strokes still meet
    strokes = [curve(np.array([point + jitter[point] for point in stroke])) @ shape.T for stroke in way]
    low, high = (reach(np.concatenate(strokes), axis=0) for reach in (np.min, np.max))
    margin = max(WIDTHS) / 2
    corner = random.uniform(margin, np.maximum(SIDE - margin - (high - low), margin + 1))
    return [stroke - low + corner for stroke in strokes]


def curve(points: np.ndarray) -> np.ndarray:
    """Return a smooth curve (50, 2) through points (N, 2)."""
    lengths = np.concatenate([[0], np.hypot(*np.diff(points, axis=0).T).cumsum()])
    return CubicSpline(lengths, points)(np.linspace(0, lengths[-1], 50))
