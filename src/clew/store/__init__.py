"""The store: a SQL index of all runs, derived from their journals and always rebuildable from them."""
