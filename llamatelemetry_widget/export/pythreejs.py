"""An embedding space as a pythreejs scene, to be mixed with what somebody builds in three.js from Python.

In: facts, points, their colours. Out: a `pythreejs.Renderer` with one `Points` object, names as sprites, an orbit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import BackendMissing
from . import colour
from .embedding import point_colours

Array = np.ndarray[Any, Any]

_FAR = 0.99  # share of the points that lie in the ball of radius 1 that the camera looks at


def renderer(
    facts: Mapping[str, Any],
    positions: Array,
    labels: Array,
    theme: str,
    color: str,
    column: tuple[Array, list[str]] | None,
    marked: Sequence[tuple[int, str]],
    size: tuple[int, int],
) -> Any:
    """Build the scene. Rows without a place in the projection are left out.

    Parameters
    ----------
    facts, labels, theme, color, column, marked
        As `embedding.draw` takes them.
    positions : float32 (n, 3)
        Of the projection.
    size : (width, height)
        In px.

    Returns
    -------
    pythreejs.Renderer

    Raises
    ------
    BackendMissing
        pythreejs is not installed (the extra ``pythreejs``).
    """
    try:
        import pythreejs as three
    except ImportError as error:
        raise BackendMissing(
            "this scene needs pythreejs: pip install 'llamatelemetry-widget[pythreejs]', or show the widget itself"
        ) from error
    placed: Array = np.asarray(np.isfinite(positions).all(1))
    own = positions[placed] if placed.any() else np.zeros((1, 3))
    middle = np.median(own, axis=0)
    radius = float(np.quantile(np.linalg.norm(own - middle, axis=1), _FAR)) or 1.0
    places = (positions - middle) / radius
    page = colour.PAGE[theme]
    geometry = three.BufferGeometry(
        attributes={
            "position": three.BufferAttribute(places[placed].astype(np.float32)),
            "color": three.BufferAttribute(
                point_colours(facts, labels, theme, color, column)[placed].astype(np.float32) / 255
            ),
        }
    )
    points = three.Points(
        geometry=geometry,
        material=three.PointsMaterial(
            size=float(np.clip(1 / np.sqrt(len(own)), 0.006, 0.04)), vertexColors="VertexColors", sizeAttenuation=True
        ),
    )
    names: list[tuple[str, Array, str]] = []
    if color == "cluster":
        hued = [group for group in facts["clusters"] if group["hue"] is not None]
        names = [(group["name"], (np.array(group["at"]) - middle) / radius, page["ink"]) for group in hued]
    names += [(text, places[row], page["accent"]) for row, text in marked[:1] if placed[row]]
    sprites = [_sprite(three, *name) for name in names]
    camera = three.PerspectiveCamera(position=[0, 0, 2.7], fov=45, aspect=size[0] / size[1], near=0.01, far=50)
    return three.Renderer(
        camera=camera,
        scene=three.Scene(children=[points, *sprites, camera], background=page["fill"]),
        controls=[three.OrbitControls(controlling=camera)],
        width=size[0],
        height=size[1],
        antialias=True,
    )


def _sprite(three: Any, text: str, at: Array, ink: str) -> Any:
    """A name just above its place; three.js stretches a texture over its sprite, so the width follows the text."""
    height = 0.055
    texture = three.TextTexture(string=text, color=ink, size=48, squareTexture=False, minFilter="LinearFilter")
    return three.Sprite(
        position=[float(x) for x in at],
        center=[0.5, -0.15],
        scale=[0.45 * height * max(len(text), 1), height, 1],
        material=three.SpriteMaterial(map=texture, transparent=True, depthTest=False),
    )
