"""Pictures and scores of partitions."""
