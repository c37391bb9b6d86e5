"""§4 of the paper: what one untrained block does to embeddings that share a bias, as the norm of that bias grows."""

from fastaniso.paper.untrained_block.telling import EXPERIMENT

__all__ = ["EXPERIMENT"]
