"""``python -m fastaniso``."""

from fastaniso.cli import main

main()
