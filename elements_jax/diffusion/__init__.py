"""The diffusion process: schedule, guidance, samplers, and how unedited pixels are preserved."""
