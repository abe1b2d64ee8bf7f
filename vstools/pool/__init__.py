"""The master's side of a pool, and the agent that it talks to on each host."""
