"""ldmctl: train, sample and evaluate latent diffusion models from the command line. The Python entrance is `ldmctl.api`."""
