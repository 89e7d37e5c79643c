"""Metrics of images: PSNR, SSIM, LPIPS, FID."""
