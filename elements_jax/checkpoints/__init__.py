"""Model folders in diffusers' layout, PyTorch's parameter names, tokenizers."""
