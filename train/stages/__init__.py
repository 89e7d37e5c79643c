"""The stages: VAE, stage 1 (content encoder and light decoder), stage 2 (diffusion decoder)."""
