"""Attentions as they are called: queries and keys, before and after rotation, masks and scales, in any model."""
