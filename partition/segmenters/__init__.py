"""Segmenters: SAM, MobileSAM, SLIC, and objects by point or box."""
