"""What gradient a feature gets from the code that stands in for it. Forward, both functions give exactly the code."""

import torch.nn.functional as F
from torch import Tensor


def straight_through(features: Tensor, codes: Tensor) -> Tensor:
    """[B,c,h,w] twice -> the codes; features get the gradient of their codes (van den Oord et al., arXiv:1711.00937)."""
    return codes.detach() + (features - features.detach())


def rotation(features: Tensor, codes: Tensor) -> Tensor:
    """[B,c,h,w] twice -> the codes; the gradient is turned and scaled as a feature is to become its code.

    So it stands to the feature as it stood to the code (Fifty et al., arXiv:2410.06424, section 4.2): with unit vectors
    z and e, r = (z + e) / |z + e| and |code| / |feature| held fixed, the code is that ratio times (1 - 2 r r^T + 2 e z^T) feature.
    """
    z, e = features.detach(), codes.detach()
    ratio = e.norm(dim=1, keepdim=True) / z.norm(dim=1, keepdim=True).clamp(min=1e-12)
    z, e = F.normalize(z, dim=1), F.normalize(e, dim=1)
    r = F.normalize(z + e, dim=1)
    turned = features - 2 * _along(r, features) * r + 2 * _along(z, features) * e
    return straight_through(ratio * turned, codes)


def _along(direction: Tensor, features: Tensor) -> Tensor:
    return (direction * features).sum(1, keepdim=True)
