"""Texts, sounds, images and the caller's own batches, each made ready for a model by one file."""

from fastaniso.scanning.modalities.modality import Modality, ModelBatch, check_counts
from fastaniso.scanning.modalities.opening import open_modality

__all__ = ["Modality", "ModelBatch", "check_counts", "open_modality"]
