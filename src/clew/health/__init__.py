"""Health: how a training is doing, measured on its device and fetched at once."""
