"""The numbers from which a verdict calls an autoencoder good enough for diffusion, and where they come from.

No number proves that a latent can be learned by a diffusion model; these are
rules of thumb. Where they come from:

- PSNR and SSIM: published first stages that diffusion models and transformers were trained on, at 256 x 256. Stable Diffusion's
  kl-f8 has 23.4 dB and 0.69, on COCO 2017 (model card of stabilityai/sdxl-vae); the VQGAN of factor 16 with 1,024 codes has 20.2 dB
  and 0.52 on ImageNet, the lowest of those we found (model card of markweber/taming_vqgan); latent-diffusion's own table has kl-f4
  at 27.5, kl-f8 at 24.2, vq-f8 at 22.4 to 23.1, vq-f16 at 20.8. Those are photographs: simple pictures reach such numbers with
  little learned, so the baseline decides with them.
- The baseline needs no data set: an autoencoder that is no closer than its pictures shrunk to h x w has learned nothing that
  averaging does not know. 1 dB is a fifth less squared error; no more is asked because perceptual and adversarial losses spend
  PSNR on texture. Half of its perceptual distance is asked, whatever the distance: none has a scale that holds for all data.
- Rate: the smallest published latent is 32 codes of 12 bits for 256 x 256 pixels, 0.006 bits per pixel (TiTok, arXiv:2406.07550);
  a picture in 8 bits has no more than 8 bits per channel to tell, so what a latent costs above that is not about the picture.
- Codes: nearly all can be in use (97 % of 16,384, LlamaGen, arXiv:2406.06525), 45 % still made a well-known VQGAN (the model
  card above); below a fifth the codebook has collapsed. Shares are of what so many places could reach.
- Channels: active ones as `census` defines them.
- Extremes: at most one value in 400 can lie 20 deviations out (Chebyshev's inequality), and one that does holds the deviation that
  all others are divided by, while noise, where sampling starts, stays within 6. At |z| = 50 a Gaussian posterior is
  50 ** 2 / 2 = 1,250 nats away from the prior: its divergence is not felt.
"""

from __future__ import annotations

PSNR = (20.2, 23.4)  # dB: below the first likely too low, from the second on likely enough
SSIM = (0.52, 0.69)
GAIN = 1.0  # dB over the baseline
CLOSER = 0.5  # of the baseline's perceptual distance
RATE = 0.005  # bits per pixel
CODES = (0.2, 0.5)  # shares in use
REACH = 20.0  # deviations
LARGEST = 50.0  # |z|, where a divergence to the standard normal is a loss
FEW = 30  # pictures; of fewer, intervals are wide
