"""Lineage: runs that come from other runs. Forks, replays, and whether two runs are the same."""
