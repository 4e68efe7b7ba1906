"""Live: what makes any trainer steerable. One file an adapter."""
