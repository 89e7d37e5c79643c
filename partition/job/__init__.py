"""The partition job: workers, engines, manifests."""
