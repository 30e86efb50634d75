"""Results to figures; the only part that knows plotly. Nothing here shows or saves a figure.

Figures have no background of their own and colours that show on light and dark pages; `report.css` recolours the rest.
"""

from plotly.graph_objects import Figure

from saereason.visible import visible

from .depth import plot_centroids, plot_operators
from .dose import plot_dose
from .export import save_figures
from .funnel import plot_funnel
from .heat import plot_no_answer, plot_patching, plot_steps
from .layers import plot_layers, plot_share_difference
from .measures import plot_accuracy, plot_firing, plot_quality
from .mechanisms import plot_overlaps, plot_pass_at_k, plot_through_steps, plot_weights
from .page import figure_html, plotly_script, save_page
from .reading import plot_probes, plot_similarity
from .training import plot_training

__all__ = [
    "Figure",
    "figure_html",
    "plot_accuracy",
    "plot_centroids",
    "plot_dose",
    "plot_firing",
    "plot_funnel",
    "plot_layers",
    "plot_no_answer",
    "plot_operators",
    "plot_overlaps",
    "plot_pass_at_k",
    "plot_patching",
    "plot_probes",
    "plot_quality",
    "plot_share_difference",
    "plot_similarity",
    "plot_steps",
    "plot_through_steps",
    "plot_training",
    "plot_weights",
    "plotly_script",
    "save_figures",
    "save_page",
    "visible",
]
