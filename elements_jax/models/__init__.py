"""The networks, and the paper's method in terms of them."""
