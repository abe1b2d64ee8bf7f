"""Benches: ours beside a peer and a lower bound, interleaved in one run, reported as ratios of medians."""
