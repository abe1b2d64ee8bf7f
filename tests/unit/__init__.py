"""The library alone: no root, no programs, nothing outside a temporary directory."""
