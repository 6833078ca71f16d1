"""Synthetic twins: what draws images in the layout of a data set that cannot ship."""
