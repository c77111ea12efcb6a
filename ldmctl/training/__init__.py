"""One engine for everything that learns: device, ranks, optimizer, averages, and the loop around the steps."""
