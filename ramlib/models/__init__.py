"""Models built from the core: readers, inhibition of return, learning by example."""
