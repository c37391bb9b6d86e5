"""What can be wrong with a state."""


class StateMismatchError(ValueError):
    """Two states cannot be merged: different dimension or contents, or rows counted twice."""


class CorruptStateError(ValueError):
    """A stored state is damaged, truncated, or of another kind or version."""
