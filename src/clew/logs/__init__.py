"""What is said while something runs: one logger, and nothing secret in it.

The names are imported from the modules: the filter process needs few of them, and must start fast.
"""
