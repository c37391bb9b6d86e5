"""The pair grid: rows made ready for it, and its tiles, each visited once."""
