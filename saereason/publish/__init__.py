"""Publishing SAEs: a folder with a model card, and the push to the Hugging Face hub."""

from .hub import publishable, push

__all__ = ["publishable", "push"]
