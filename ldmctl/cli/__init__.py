"""The command line: one thin file per verb, torch-free until a stage runs."""
