"""Images and scores of partitions."""
