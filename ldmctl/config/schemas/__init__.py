"""Every key of every verb, with its default and what it means, a file per verb."""
