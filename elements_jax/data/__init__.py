"""Records of photographs and their elements. NumPy only: the partition job writes records without JAX."""
