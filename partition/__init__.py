"""Photographs become image elements: segmenters, Algorithm 2, and the job that writes records. PyTorch and NumPy."""
