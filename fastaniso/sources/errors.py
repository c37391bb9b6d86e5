"""What can be wrong with a file of vectors."""


class CorruptFileError(ValueError):
    """A file of vectors is damaged, or holds something that cannot be read without running code."""
