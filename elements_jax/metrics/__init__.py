"""Metrics of pictures: PSNR, SSIM, LPIPS, FID."""
