"""The other rows of the paper's tables, behind the interface of `ramlib.interface`."""
