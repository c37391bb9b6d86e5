"""Transforms of rows as scikit-learn estimators: fit on one set of rows, or on a state, and apply to another.

Fitting reads the rows once and keeps sums, so that batches stream; ``report`` shows what a transform changed.
Needs scikit-learn 1.6 or newer.
"""

from fastaniso.transforms.all_but_the_top import AllButTheTop
from fastaniso.transforms.center import Center
from fastaniso.transforms.drop_dimensions import DropDimensions
from fastaniso.transforms.report import BeforeAfter, report
from fastaniso.transforms.standardize import Standardize
from fastaniso.transforms.whiten import Whiten

__all__ = ["AllButTheTop", "BeforeAfter", "Center", "DropDimensions", "Standardize", "Whiten", "report"]
