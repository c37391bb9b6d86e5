"""The ops, one name each in every backend: ``moments``, ``group_moments``, ``gram``."""
