"""The only place that knows the order of things: storage, network, limits, LXC - and the way back."""
