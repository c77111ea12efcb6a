"""What lies on disk: run folders, weights, and files that others published."""
