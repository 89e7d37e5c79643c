"""Presets: one module each, holding MODEL and how each stage trains it: VAE, AUTOENCODER and DIFFUSION."""
