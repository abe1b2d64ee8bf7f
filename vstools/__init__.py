"""vs-tools: run a pool of Linux guests without a platform."""

__version__ = "0.1.0"
