"""Sources of plugins whose answer a test chooses."""

SAMPLER = "class Odd:\n    Config = Plain\n    def __init__(self, config): pass\n    def __call__(self, denoise, x, sigmas, noise): return {said}\n"
PERCEPTUAL = """
class Odd(nn.Module):
    Config = Plain
    def __init__(self, config, *, image_channels):
        super().__init__()
    def forward(self, image, target):
        return {said}
"""
