"""Sets of interventions on disk: saereason's own format, and the formats of programs that steer too."""

from .folder import load_steering, save_steering
from .llama_cpp import load_control_vector, save_control_vector
from .lm_eval import load_lm_eval, save_lm_eval
from .neuronpedia import load_neuronpedia, save_interp_engine, save_neuronpedia

__all__ = [
    "load_control_vector",
    "load_lm_eval",
    "load_neuronpedia",
    "load_steering",
    "save_control_vector",
    "save_interp_engine",
    "save_lm_eval",
    "save_neuronpedia",
    "save_steering",
]
