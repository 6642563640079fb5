"""Drawn faces that replace CelebA's photographs in the demos: the 18 attributes are their true factors.

A shape is given by the distance of each pixel to its edge, negative inside, in the frame of the head: x to the right
and y downwards from the point between the eyes, with a face about 33 wide. The features lie at (u, v) on the surface of
the head, a cylinder that turns and nods.
"""

import math

from celeba.attributes import ATTRIBUTES
from celeba.drawing import BATCH, SIZE, Draws, Measure, along_ray, ellipse, patterned, photograph, rgb, slope

import torch
from torch import Tensor

MEASURES = 116  # random numbers for a face's measures and colours
HAIR = {"Black_Hair": (0.06, 0.05, 0.06), "Blond_Hair": (0.9, 0.72, 0.36)}
HAIR |= {"Brown_Hair": (0.36, 0.2, 0.1), "Gray_Hair": (0.66, 0.66, 0.68)}


def random_attributes(n: int, generator: torch.Generator) -> Tensor:
    """Draw attributes (n, 18) int64, 0 or 1, in combinations that people have and a picture can show."""

    def chance(condition: Tensor, p_if_true: float, p_if_false: float) -> Tensor:
        return torch.rand(n, generator=generator) < torch.where(condition, p_if_true, p_if_false)

    male, smiling = (torch.rand(2, n, generator=generator) < 0.5).unbind()
    hat = chance(male, 0.22, 0.18)
    bald = chance(male, 0.3, 0.1) & ~hat
    receding = chance(male, 0.5, 0.2) & ~hat & ~bald
    colour, texture = torch.rand(2, n, generator=generator)
    ends = torch.where(male[:, None], torch.tensor([0.31, 0.45, 0.69, 0.85]), torch.tensor([0.25, 0.5, 0.74, 0.85]))
    hair = (colour[:, None] >= ends).sum(dim=1)  # index into HAIR, or len(HAIR) for another colour
    textured = ~bald & ~(hat & male)  # the hair below a man's hat is too short to show its texture
    flags = {name: (hair == i) & ~bald for i, name in enumerate(HAIR)}
    flags |= {"Bald": bald, "Male": male, "Receding_Hairline": receding, "Smiling": smiling, "Wearing_Hat": hat}
    flags |= {"Straight_Hair": textured & (texture < 0.39), "Wavy_Hair": textured & (texture > 0.61)}
    flags |= {"Bangs": chance(male, 0.35, 0.5) & ~hat & ~bald & ~receding, "Bushy_Eyebrows": chance(male, 0.5, 0.35)}
    flags |= {"Eyeglasses": chance(male, 0.42, 0.38), "Heavy_Makeup": chance(male, 0.06, 0.7)}
    flags |= {"Mouth_Slightly_Open": chance(smiling, 0.65, 0.35), "Mustache": chance(male, 0.55, 0)}
    flags |= {"Pale_Skin": chance(male, 0.35, 0.45)}
    return torch.stack([flags[name] for name in ATTRIBUTES], dim=1).long()


def draw_with_masks(attributes: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw random faces (N, 3, 64, 64) uint8 with the attributes (N, 18), 0 or 1, and masks (N, 1, 64, 64) uint8.

    The masks show mouth, eyes, brows, nose and jaw, 255 on 0. They look like those that vision/setup.py draws from a
    detector's 68 landmarks: filled convex hulls, and a jaw line 2 pixels wide.
    """
    batches = [_Portraits(rows, generator).finished() for rows in attributes.split(BATCH)]
    faces, masks = (torch.cat(pictures) for pictures in zip(*batches, strict=True))
    return faces, masks


class _FaceDraws(Draws):
    """Random measures and colours of n faces."""

    def colour(self, high: float = 0.95, grey: float = 0.2) -> Tensor:
        """Return colours (n, 3, 1, 1) up to `high`, a fraction `grey` of the way to grey."""
        colour = torch.stack([self(0.05, high) for _ in range(3)], dim=1)  # (n, 3, 1, 1)
        return colour.lerp(colour[:, :1], grey)

    def hue(self, first: float, last: float) -> Tensor:
        """Return vivid colours (n, 3, 1, 1) between two hues: red at 0, blue at 1/3, green at 2/3, red at 1."""
        return 0.5 + 0.4 * torch.cos(2 * math.pi * (self(first, last)[:, None] + rgb(0, 1 / 3, 2 / 3)))


class _Portraits:
    """Paints a batch of n faces, from the background to the hat. Flags and measures are (n, 1, 1)."""

    def __init__(self, attributes: Tensor, generator: torch.Generator) -> None:
        self.has = dict(zip(ATTRIBUTES, attributes.float().T[:, :, None, None], strict=True))
        self.draws = _FaceDraws(len(attributes), MEASURES, generator)
        self.hulls: list[Tensor] = []
        self._pose()
        self._pigments()
        self._background()
        for step in (self._body, self._head, self._eyes, self._nose_and_mouth, self._hair, self._worn):
            step()

    def finished(self) -> tuple[Tensor, Tensor]:
        """Return the faces, lit, slightly blurred and grained, (n, 3, 64, 64), and masks (n, 1, 64, 64), uint8."""
        faces = photograph(self.image, self.draws, (0.75, 1.05), 0.15, 0.06, 0.3, (0.01, 0.04))
        masks = torch.stack(self.hulls).amin(dim=0) < 0
        return faces, 255 * masks.to(torch.uint8)[:, None]

    def _paint(self, opacity: Tensor, colour: Tensor) -> None:
        """Blend a colour (n, 3, ...) into the image with an opacity (n, 64, 64) in [0, 1]."""
        self.image.lerp_(colour, opacity[:, None])

    def _cover(self, distance: Tensor, soft: float = 1) -> Tensor:
        """Return a shape's opacity (n, 64, 64) from the distances to its edge, which blurs over `soft` pixels."""
        return (0.5 - distance * (self.scale / soft)).clamp(0, 1)

    def _pose(self) -> None:
        """Set the head's frame (x, y), its size, and the surface's coordinates (u, v)."""
        draws, steps = self.draws, torch.arange(SIZE) - (SIZE - 1) / 2
        self.scale, angle = draws(0.9, 1.05), draws(-0.1, 0.1)
        right, down = steps - draws(-1.5, 1.5), steps[:, None] - draws(-1.5, 1.5)
        cos, sin = angle.cos() / self.scale, angle.sin() / self.scale
        self.x, self.y = cos * right + sin * down, cos * down - sin * right
        self.width = draws.either(self.has["Male"], (15.5, 18), (14.5, 17))
        self.turn, nod = draws(-0.2, 0.2), draws(-1, 1)
        across = (self.x / self.width).clamp(-0.98, 0.98)
        self.u = self.width * (across * self.turn.cos() - (1 - across.square()).sqrt() * self.turn.sin())
        self.v = self.y - nod

    def _pigments(self) -> None:
        """Choose the colours of skin, hair and brows."""
        draws, has = self.draws, self.has
        skin = rgb(0.86, 0.62, 0.46).lerp(rgb(0.34, 0.2, 0.13), draws(0, 1)[:, None])
        self.skin = skin.lerp(rgb(0.96, 0.87, 0.83), (has["Pale_Skin"] * draws(0.85, 1))[:, None])
        hair = draws.hue(0.15, 0.75).lerp(rgb(0.75, 0.3, 0.07), draws.chance(0.6)[:, None])  # dyed, or red
        for name, colour in HAIR.items():
            hair = hair.lerp(rgb(*colour), has[name][:, None])
        self.pigment = hair * draws(0.85, 1.1)[:, None] + 0.06 * (draws.colour() - 0.5)
        self.dark = rgb(0.13, 0.09, 0.07)
        self.brow = self.dark.lerp(0.6 * self.pigment, 0.6 * (1 - has["Bald"][:, None]))

    def _background(self) -> None:
        """Start the image: a ramp of two colours, and a pattern."""
        draws = self.draws
        ramp = slope(draws, 0.5, 0.5, 0.5).clamp(0, 1)
        self.image = draws.colour(grey=0.6).lerp(draws.colour(grey=0.6), ramp[:, None])
        self.image += draws(0, 0.3)[:, None] * patterned(draws, 0.6)

    def _body(self) -> None:
        """Paint clothes, ears, the hair behind the head, and the neck."""
        draws, has, x, y = self.draws, self.has, self.x, self.y
        male, straight, wavy = has["Male"], has["Straight_Hair"], has["Wavy_Hair"]
        self._paint(self._cover(ellipse(x, y - 52, draws(28, 36), draws(20, 27))), draws.colour())
        ear = ellipse(x.abs() - self.width - 0.5, y - 3, 2.6, draws(4, 5.5))
        self._paint(self._cover(ear), 0.85 * self.skin)

        self.high, self.volume = draws(21.5, 24.5), draws(2, 4.5)
        length = draws.either(male, (-1, 9), (9, 36))
        self.length = torch.where(draws.chance(0.12) > 0, 14 - 0.45 * length, length)  # long on some men, or short
        rate, phase = draws(0.5, 0.75), draws(0, 6)
        swing = wavy * draws(1.2, 1.9) * torch.sin(rate * y + phase)
        curls = self.volume + 0.8 * swing
        dome = ellipse(x, y, self.width + curls, self.high + curls + wavy * torch.sin(rate * x + phase))
        ends = y - self.length + (1 - straight) * 0.06 * x.square().clamp(max=60)  # round but for straight hair
        self.outline = torch.where(y < 0, dome, torch.maximum(x.abs() - self.width - curls, ends))
        fall = (y.clamp(max=0) / (self.high + 7)).square()
        self.meridian = x / (1 - fall).clamp(min=0.1).sqrt() + 1.6 * swing  # constant along a strand from the crown
        strands = (straight + wavy) * torch.sin(draws(1.3, 1.7) * self.meridian + draws(0, 6))
        self.locks = self.pigment * (1 + 0.3 * strands[:, None]) + 0.07 * strands[:, None]
        self._paint(self._cover(self.outline) * (1 - has["Bald"]), 0.75 * self.locks)

        sides = x.abs() - draws.either(male, (10, 13), (6, 8.5)) - 0.01 * (y - 20).square()
        neck = torch.maximum(torch.maximum(sides, 8 - y), ellipse(x, y - 12, 20, draws(20, 28)))
        self._paint(self._cover(neck), 0.78 * self.skin)

    def _head(self) -> None:
        """Paint the head, its shine and blush, and a beard's shadow."""
        draws, has, x, y, u, v = self.draws, self.has, self.x, self.y, self.u, self.v
        male, chin = has["Male"], draws(22, 25)
        square, taper = draws.either(male, (2.3, 2.9), (1.8, 2.1)), draws.either(male, (0.02, 0.14), (0.14, 0.26))
        low = (y / chin).clamp(min=0)
        jaw = ((x.abs() / (self.width * (1 - taper * low))).pow(square) + low.pow(square)).pow(1 / square)
        head = torch.where(y < 0, ellipse(x, y, self.width, self.high), along_ray(x, y, jaw))
        self.hulls.append(torch.maximum(head.abs() - 1 / self.scale, -2 - y))
        self.face = self._cover(head)
        rounding = 1.06 - 0.22 * (head / 16 + 1).clamp(0, 1).square()
        self._paint(self.face, self.skin * rounding[:, None])
        shine = _near(u - draws(-6, 6), v + draws(14, 18), 6)
        self._paint(0.6 * self.face * has["Bald"] * shine, rgb(1, 1, 1))
        blush = has["Heavy_Makeup"] * draws(0.3, 0.55) * _near(u.abs() - 9, v - 9, 6)
        self._paint(self.face * blush, draws.hue(-0.05, 0.08))
        shadow = ((v - 6) / 4 - 0.015 * (13 - u.abs()).square().clamp(max=60)).clamp(0, 1)
        self._paint(self.face * male * draws(0.12, 0.38) * shadow, self.brow)
        goatee = self._cover(ellipse(u, v - chin + 3, 4, 3))
        self._paint(self.face * male * draws.chance(0.25) * goatee, self.brow)

    def _eyes(self) -> None:
        """Paint eyes and brows, both sides at once: each is centred where `aside` is 0."""
        draws, has, v = self.draws, self.has, self.v
        makeup, smile = has["Heavy_Makeup"], has["Smiling"]
        self.aside = aside = self.u.abs() - draws(6.5, 7.7)
        y, wide = v + draws(-0.1, 0.12) * aside, draws(3.2, 4)
        eye, hull, lid = _leaf(aside, y, wide, draws(-0.6, 0) - 0.3 * smile, draws(1.6, 2.3) - 0.4 * smile)
        self.hulls.append(hull)
        shadow, *_ = _leaf(aside, y + 0.8, wide + 1.2, -2, 2.2)
        self._paint(self.face * makeup * draws(0.6, 0.9) * self._cover(shadow, 1.5), 0.8 * draws.hue(0.1, 0.8))
        white = self.face * self._cover(eye)
        self._paint(white, rgb(0.93, 0.92, 0.9))
        ball = ((aside - draws(-1.1, 1.1) * self.u.sign()).square() + y.square()).sqrt()
        bright = rgb(0.25, 0.45, 0.7).lerp(rgb(0.3, 0.5, 0.3), draws(0, 1)[:, None])
        self._paint(white * self._cover(ball - 1.7), rgb(0.25, 0.14, 0.07).lerp(bright, draws(0, 1)[:, None]))
        self._paint(white * self._cover(ball - 0.8), rgb(0.03, 0.03, 0.03))
        lashes = torch.maximum((y - lid).abs() - 0.35 - 0.4 * makeup, aside.abs() - wide - 0.8 * makeup)
        self._paint(self.face * self._cover(lashes), 0.6 * self.dark)

        y = v + draws(5.6, 6.4) + draws(-0.15, 0.2) * aside
        half = draws.either(has["Bushy_Eyebrows"], (1.7, 2.4), (0.5, 0.85))
        brow, hull, _ = _leaf(aside, y, draws(4.2, 5.2), draws(-1.5, -0.3), half)
        self.hulls.append(hull)
        self._paint(self.face * draws(0.8, 1) * self._cover(brow), self.brow)

    def _nose_and_mouth(self) -> None:
        """Paint the nose, the mouth, and a moustache."""
        draws, has, u, v = self.draws, self.has, self.u, self.v
        tip, breadth = draws(6.5, 8.5), draws(2.4, 3.8)
        x = u - 0.22 * self.turn * (v + 2).clamp(0, 12)  # the nose stands out from the cylinder
        bridge = torch.maximum(x.abs() - breadth * (v + 1).clamp(min=0) / (tip + 1), v - tip)
        self.hulls.append(torch.maximum(bridge, -1 - v))
        lit = (0.5 + draws(-1, 1).sign() * x / 3).clamp(0, 1)
        self._paint(0.35 * self.face * self._cover(bridge, 2) * lit, 0.55 * self.skin)
        self._paint(0.6 * self.face * self._cover(ellipse(x, v - tip, breadth, 0.9), 1.4), 0.55 * self.skin)
        self._paint(self.face * self._cover(ellipse(x.abs() - 0.55 * breadth, v - tip, 0.8, 0.6)), 0.25 * self.skin)

        smile, makeup, parted = has["Smiling"], has["Heavy_Makeup"], has["Mouth_Slightly_Open"]
        bend, wide = draws.either(smile, (2.8, 4), (-1, 0.1)), draws.either(smile, (7, 8.5), (4.6, 6.2))
        full, gap = draws.either(has["Male"], (0.9, 1.4), (1.2, 1.9)) + 0.25 * makeup, parted * draws(1.3, 2.4)
        level = draws(13, 14.5) - 0.35 * bend
        lips, hull, _ = _leaf(u, v - level, wide, bend, full + gap)
        self.hulls.append(hull)
        natural, lipstick = self.skin * rgb(0.92, 0.68, 0.66), draws.hue(-0.02, 0.16) * rgb(0.9, 0.6, 0.8)
        self._paint(self.face * self._cover(lips), natural.lerp(lipstick, 0.95 * makeup[:, None]))
        inside, _, upper = _leaf(u, v - level, wide - 0.8 * parted, bend, gap.clamp(min=0.3))
        self._paint(self.face * self._cover(inside), rgb(0.22, 0.06, 0.06))
        teeth = torch.maximum(inside, v - level - upper - draws(0.4, 1) * gap)
        self._paint(self.face * parted * draws.chance(0.7) * self._cover(teeth), rgb(0.95, 0.93, 0.88))
        cheek = (u.abs() - wide - 1.5 - 0.1 * (v - level).square()).abs() - 0.35
        folds = torch.maximum(cheek, (v - level + 1.5).abs() - 3.5)
        self._paint(0.6 * self.face * smile * self._cover(folds), 0.6 * self.skin)
        middle = 0.5 * (tip + level + bend - full - gap) + 0.7
        moustache, *_ = _leaf(u, v - middle, draws(6, 8.5), draws(-1.8, -0.3), draws(1.5, 2.2))
        self._paint(0.95 * self.face * has["Mustache"] * self._cover(moustache), self.brow)

    def _hair(self) -> None:
        """Paint the hair in front, down to the hairline on the forehead and the cheeks."""
        draws, has, side = self.draws, self.has, self.u.abs()
        line, temples = draws(-18, -14.5), ((side - draws(8.5, 10)) / 5).clamp(0, 1)
        line = line + (self.length.clamp(min=0) + 2 - line) * temples.square() * (3 - 2 * temples)
        line = line - has["Receding_Hairline"] * draws(6, 9) * (1 - ((side - 8.5) / 5).square()).clamp(min=0)
        tufts = draws(0.4, 1) * torch.sin(draws(0.8, 1.6) * self.meridian)
        fringe = draws(-9.5, -7.5) + draws(-0.12, 0.12) * self.u + tufts - (side - 11).clamp(min=0)
        line = torch.where(has["Bangs"] > 0, torch.maximum(line, fringe), line)
        hair = self._cover(torch.maximum(self.outline, self.v - line))
        self._paint(hair * (1 - has["Bald"]), self.locks)

    def _worn(self) -> None:
        """Paint glasses and a hat."""
        draws, x, v = self.draws, self.x, self.v
        glasses, hat = self.has["Eyeglasses"] * self.face, self.has["Wearing_Hat"]
        across, corner = draws(4.2, 5.6), draws(1.2, 3)
        right, down = self.aside.abs() - across + corner, (v - 0.3).abs() - draws(3.2, 4.8) + corner
        lens = (right.clamp(min=0).square() + down.clamp(min=0).square()).sqrt()
        lens = lens + torch.maximum(right, down).clamp(max=0) - corner
        bars = torch.maximum((v + 1).abs() - 0.6, across - self.aside.abs())
        self._paint(glasses * draws(0.05, 0.3) * self._cover(lens), draws.colour())
        frames = torch.minimum(lens.abs() - draws(0.45, 0.8), bars)
        self._paint(glasses * self._cover(frames), draws.colour(high=0.5))

        felt, up = draws.colour(), draws(-11, -9.5) - v
        crown = torch.maximum(ellipse(x, up.clamp(min=0), self.width + self.volume + 1, draws(13, 20)), -up)
        brim = ellipse(x, up - draws(-0.01, 0.01) * x.square(), draws(17, 28), draws(1.1, 2))
        self._paint(hat * self._cover(crown), felt * (1 - 0.01 * x)[:, None])
        self._paint(hat * self._cover(torch.maximum(crown, up - draws(2, 6))), draws.colour())
        self._paint(hat * self._cover(brim), 0.8 * felt)


def _near(x: Tensor, y: Tensor, reach: float) -> Tensor:
    """Return a soft spot: 1 at the origin, 0 from the distance `reach` on."""
    return (1 - (x.square() + y.square()) / reach**2).clamp(min=0)


def _leaf(x: Tensor, y: Tensor, reach: Tensor, bend: Measure, thick: Measure) -> tuple[Tensor, Tensor, Tensor]:
    """Return distances to a leaf with tips at (-reach, 0) and (reach, 0), to its convex hull, and its upper edge.

    Its middle is at (0, bend): below the tips, as in a smile, if the bend is positive.
    """
    rest = 1 - (x / reach).square()
    top, bottom = (bend - thick) * rest, (bend + thick) * rest
    hull = torch.maximum(top.clamp(max=0) - y, y - bottom.clamp(min=0))
    return torch.maximum(top - y, y - bottom), torch.maximum(hull, -reach * rest), top
