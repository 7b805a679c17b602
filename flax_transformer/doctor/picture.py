"""The influence matrices as a PNG: what was measured beside what should be."""

import importlib.util
from pathlib import Path

import numpy as np

from flax_transformer.doctor.report import Report
from flax_transformer.errors import UserError
from flax_transformer.outputs import PICTURE

_WRONG = "#d62728"


def save_picture(report: Report, path: Path) -> None:
    """Two heat maps for each matrix; where they disagree, a red frame.

    Raises:
        UserError: matplotlib is not installed, or there is nothing to show.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise UserError("--png needs matplotlib, which is an extra: pip install 'flax-transformer[plot]'")
    if not report.heat_maps:
        raise UserError("--png: there is no influence matrix, since the model's logits could not be compared")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    count = len(report.heat_maps)
    figure = Figure(figsize=(4.2 * count, 7.4), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    figure.suptitle(f"{report.subject}: {'ill' if report.is_ill else 'healthy'}", fontsize=12)
    axes = figure.subplots(2, count, squeeze=False)
    for column, heat_map in enumerate(report.heat_maps):
        top, bottom = axes[0][column], axes[1][column]
        scale = max(float(np.max(heat_map.measured)), 1e-300)
        shown = np.where(heat_map.seen, 0.15 + 0.85 * (heat_map.measured / scale) ** 0.5, 0)
        top.imshow(shown, cmap="Blues", vmin=0, vmax=1)
        bottom.imshow(heat_map.expected, cmap="Greys", vmin=0, vmax=1.6)
        for i, j in np.argwhere(heat_map.seen != heat_map.expected):
            top.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, edgecolor=_WRONG, linewidth=1.8))
        outputs, inputs = heat_map.axes
        for axis, words in ((top, "measured"), (bottom, "expected")):
            axis.set_title(f"{heat_map.title}, {words}", fontsize=10)
            axis.set_xlabel(inputs)
            axis.set_ylabel(outputs)
            axis.set_xticks(range(heat_map.measured.shape[1]))
            axis.set_yticks(range(heat_map.measured.shape[0]))
            axis.tick_params(labelsize=7)
    figure.savefig(path, format="png", metadata=PICTURE)
