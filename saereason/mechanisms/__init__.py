"""Ways to make a model reason, each a small value that can be used alone, and what each changes inside."""

from .adapted import Adapted
from .asking import Asked, ChainOfThought, Direct, ForcedPrefix, ThinkLonger, chain_of_draft
from .backward import BackwardCheck
from .comparison import Comparison, answer_ahead, compare, kept_answers
from .decoding import CoTDecoding
from .fingerprints import States, along, states, states_at
from .forms import Changed, Demonstrated, Following, changed_chains, demonstrated, follow
from .mechanism import Mechanism, Written, answer_rows, elicit
from .overlaps import Overlap, overlap, overlaps, raised
from .sampling import right_of
from .steering import Steered, compression, compression_vector
from .tools import TOOLS, AsManyTokens, CognitiveTools, Tool
from .undone import Without
from .vectors import VectorRecipe, train_vectors, with_vectors
from .weights import weight_change

__all__ = [
    "TOOLS",
    "Adapted",
    "AsManyTokens",
    "Asked",
    "BackwardCheck",
    "ChainOfThought",
    "Changed",
    "CoTDecoding",
    "CognitiveTools",
    "Comparison",
    "Demonstrated",
    "Direct",
    "Following",
    "ForcedPrefix",
    "Mechanism",
    "Overlap",
    "States",
    "Steered",
    "ThinkLonger",
    "Tool",
    "VectorRecipe",
    "Without",
    "Written",
    "along",
    "answer_ahead",
    "answer_rows",
    "chain_of_draft",
    "changed_chains",
    "compare",
    "compression",
    "compression_vector",
    "demonstrated",
    "elicit",
    "follow",
    "kept_answers",
    "overlap",
    "overlaps",
    "raised",
    "right_of",
    "states",
    "states_at",
    "train_vectors",
    "weight_change",
    "with_vectors",
]
