"""Pictures as stored, turned into the batches that models are trained on."""
