"""The ruler: scenes for choosing and comparing weights. They cover all that training draws, but use files that training never sees.

    python -m synthetic --ruler val --count 72 --export data/ruler/val --hdr-dir DIR --rendered-dir R        72 scenes to choose by
    python -m synthetic --ruler test --count 72 --export data/ruler/test --hdr-dir DIR --rendered-dir R      72 more, for the final score

    kind        scenes of 72
    static      24          nothing moves, ISO 50 to 200, exact exposures, gamma 2.2 or sRGB, no JPEG
    moving      12          gamma 2.2 and exact exposures; camera and things move
    curve       12          a camera's picture style; camera and things move
    any         12          everything that training draws; camera and things move
    night       12          ISO 3200 to 12800; camera and things move

Each kind has steps of 1, 2, 3 and 4 EV, and the three sources, in equal shares. A scene's name begins with its kind and step.
"""

from synthetic.dataset import AS_TAKEN, MOVES, SyntheticBrackets, SyntheticConfig

RULER = 72              # scenes in each half
HALVES = {"val": 0, "test": 2 * RULER}    # index of each first scene. The scenes between were the test half until D14 was developed on them
RULER_SEED = 2_000_000  # of both halves, the same for every run
EXACT = {"response": (1.0, 0.0, 0.0), "misstated": 0.0, "ev_error": 0.0, "clipped_early": 0.0, "raised_black": 0.0}
KINDS = {
    "static": {**EXACT, "response": (0.7, 0.3, 0.0), "still": True, "static_camera": 1.0, "static_scene": 1.0, "shake": 0.0, "jpeg": 0.0, "iso": (50.0, 200.0)},
    "moving": EXACT,
    "curve": {**EXACT, "response": (0.0, 0.0, 1.0)},
    "any": {},
    "night": {"iso": (3200.0, 12800.0)},
}
ORDER = ("static", "moving", "curve", "static", "any", "night")     # of the kinds


def kind_and_step(index):
    """Returns the kind of scene `index` and its exposure step in stops. Three scenes in a row, one per source, share both."""
    turn, place = divmod(index // 3, len(ORDER))
    return ORDER[place], 1 + (turn + place) % 4


class Ruler(SyntheticBrackets):
    """Scenes as the camera takes them. Arguments and Returns: as for SyntheticBrackets; first: index of the first scene."""

    def __init__(self, size, first, length, hdr_dir, rendered_dir):
        super().__init__(size, RULER_SEED, length, hdr_dir, rendered_dir, "val", SyntheticConfig(**MOVES, **AS_TAKEN))
        self.offset = first

    def bracket(self, index):
        """Makes scene first + index, as SyntheticBrackets.bracket does."""
        kind, step = kind_and_step(self.offset + index)
        self.config = SyntheticConfig(**{**MOVES, **AS_TAKEN, **KINDS[kind], "ev_steps": (float(step),)})
        return super().bracket(self.offset + index)

    def name(self, index):
        """Names a scene, such as curve_3ev_photographed_040_Tree."""
        kind, step = kind_and_step(self.offset + index)
        source, file, _ = self.source(self.offset + index)
        return f"{kind}_{step}ev_{source}_{self.offset + index:03d}" + (f"_{file[0].stem}" if file else "")


def ruler(size, count=RULER, hdr_dir=None, rendered_dir=None, half="val"):
    """Opens the first `count` scenes of one half of the ruler, "val" or "test". Other arguments: as for SyntheticBrackets. Returns: Ruler.

    Raises: ValueError for more scenes than a half has.
    """
    if count > RULER:
        raise ValueError(f"the ruler: {count} scenes were asked for; each half has {RULER}")
    return Ruler(size, HALVES[half], count, hdr_dir, rendered_dir)
