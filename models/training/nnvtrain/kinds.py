"""Kinds of pictures, told apart by cheap statistics of a crop."""

from __future__ import annotations

import numpy as np

KINDS = ("smooth", "dark", "grey", "screen", "texture", "motion")
# What is drawn more often in training: the codec did worst on these, and they are rare.
FAVOURED = {"smooth", "dark", "grey"}


def kinds(planes) -> set:
    """Kinds of a crop (y, u, v), arrays [h,w] or [frames,h,w]; there may be several, or none.

    The limits part off about a tenth of the crops each (smooth: a fifth), measured on the training
    set. Motion is what changes in means of 8×8 samples, so that noise counts little.
    """
    y, u, v = planes
    first = (y if y.ndim == 2 else y[0]).astype(np.int16)
    steps = [np.abs(first[:, 1:] - first[:, :-1]), np.abs(first[1:] - first[:-1])]
    slope = (steps[0].mean() + steps[1].mean()) / 2
    screen = (steps[0] <= 1).mean() > 0.7 and (steps[0] > 24).mean() > 0.015
    found = set()
    if screen:
        found.add("screen")
    elif slope < 1.5 or slope > 8:
        found.add("smooth" if slope < 1.5 else "texture")
    if first.mean() < 55:
        found.add("dark")
    if sum(np.abs(c.astype(np.int16) - 128).mean() for c in (u, v)) < 4:
        found.add("grey")
    if y.ndim == 3:
        h, w = (n // 8 for n in first.shape)
        means = y[:2, : h * 8, : w * 8].reshape(2, h, 8, w, 8).mean((2, 4))
        if np.abs(means[1] - means[0]).mean() > 6:
            found.add("motion")
    return found


def collect(draw, count: int, tries: int = 400) -> dict:
    """`count` crops of each kind out of at most `tries` draws; fewer or none of rare kinds."""
    sets = {}
    for _ in range(tries):
        planes = draw()
        for kind in kinds(planes):
            if len(sets.setdefault(kind, [])) < count:
                sets[kind].append(planes)
        if len(sets) == len(KINDS) and all(len(s) == count for s in sets.values()):
            break
    return {kind: sets[kind] for kind in KINDS if kind in sets}
