"""The diffusion process: schedule, guidance, samplers and the preservation of unedited pixels."""
