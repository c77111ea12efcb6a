"""What the first stage minimises."""
