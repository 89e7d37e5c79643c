"""Evidence: metrics, baselines, benchmarks and the user study of the paper (Section 4)."""
