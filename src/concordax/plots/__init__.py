"""Pictures of a fit; the only package that imports matplotlib. Computes nothing beyond what drawing needs.

Every function takes plain arrays and returns a `matplotlib.figure.Figure` of its own: no pyplot, no current figure.
Curves differ by dash and marker as well as by color, so that the pictures read without color.
"""

try:
    from matplotlib.figure import Figure as Figure
except ImportError as error:
    raise ImportError("`concordax.plots` needs matplotlib: `pip install 'concordax[report]'`.") from error

from .course import history as history
from .course import importance as importance
from .course import spectrum as spectrum
from .experiments import experiment as experiment
from .experiments import save as save
from .held_out import confidence as confidence
from .held_out import confusion as confusion
from .held_out import coverage as coverage
from .held_out import predictions as predictions
from .held_out import reliability as reliability
from .held_out import residuals as residuals
from .kernel import kernel_change as kernel_change
from .kernel import kernel_spectrum as kernel_spectrum
from .kernel_sweep import against_width as against_width
from .path import strength_path as strength_path
from .style import FIRST as FIRST
from .style import GRID as GRID
from .style import INK as INK
from .style import MOST_BARS as MOST_BARS
from .style import MOST_NUMBERED_CLASSES as MOST_NUMBERED_CLASSES
from .style import MOST_ROWS as MOST_ROWS
from .style import MUTED as MUTED
from .style import PALETTE as PALETTE
from .style import SECOND as SECOND
from .style import clean as clean
from .style import shown_rows as shown_rows
from .style import superscript as superscript
from .style import svg as svg
