"""What transforms take from scikit-learn, in one place, with the remedy where it is not installed."""

try:
    from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
    from sklearn.utils import check_array
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ModuleNotFoundError(
        "fastaniso.transforms needs scikit-learn 1.6 or newer: pip install 'fastaniso[transforms]'", name="sklearn"
    ) from error

__all__ = [
    "BaseEstimator",
    "OneToOneFeatureMixin",
    "TransformerMixin",
    "check_array",
    "check_is_fitted",
    "validate_data",
]
