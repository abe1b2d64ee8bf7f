"""Guests' packages: which manager a guest has, what it is told, what it says, and what its databases hold."""
