"""One self-contained HTML page of runs, caches, samples and scores."""
