"""Flat files <-> data. Every fault is told with file, line and column, all of a file's at once."""
