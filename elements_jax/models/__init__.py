"""The networks, and the paper's method built from them."""
