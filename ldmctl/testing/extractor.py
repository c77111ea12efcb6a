"""What an extractor promises: numbers of each picture alone, the same each time."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from ldmctl.testing.promises import calling, check_saved, expect, expect_same, few, maker, promise, refusal_allowed, seeded, shape_of

SIZE, CLASSES = 32, ("dark", "light")


@promise("extractor")
def check_extractor(cls: type, /, **options: Any) -> None:
    """Features [B,D] of uint8 pictures, which differ where these do; what is fitted is in its state."""
    for channels in (3, 1):
        with refusal_allowed(channels == 1):
            make = maker(cls, options, image_channels=channels, size=SIZE, classes=CLASSES, encoder=_Encoder())
            model = make()
            image = pictures(channels)
            if hasattr(model, "fit"):
                label = (image.float().mean((1, 2, 3)) > 127).long()
                with calling("fit"):
                    model.fit([(image[:8], label[:8]), (image[8:], label[8:])])
            model.eval()
            trained = [name for name, value in model.named_parameters() if value.requires_grad]
            expect(not trained, f"{few(trained)} would be trained; an extractor is finished when it is fitted")
            with torch.no_grad(), calling("forward"):
                features = model(image[:4])
                expect(features.ndim == 2 and len(features) == 4, f"forward gave {shape_of(features)}, not [B,D]")
                expect(features.dtype == torch.float32, f"forward gave {features.dtype}, not torch.float32")
                expect(features.isfinite().all(), "features are not finite")
                expect((features[0] - features[1:]).abs().amax(1).min() > 0, "different pictures have the same features")
                expect_same(model(image[:1]), features[:1], "features depend on the other pictures of a batch")
                expect_same(model.train()(image[:4]), features, "features differ in training mode")
                if hasattr(model, "logits"):
                    expect(model.logits(features).shape == (4, len(CLASSES)), "logits are not [B,K] for K classes")
            check_saved(make, model, partial(_features, image=image[:4]))


def pictures(channels: int, count: int = 16) -> Tensor:
    """uint8 [B,C,SIZE,SIZE]: noise over a grey that is dark or light."""
    grey = torch.randint(0, 2, (count, 1, 1, 1), generator=seeded(1)) * 120
    return (torch.randint(0, 128, (count, channels, SIZE, SIZE), generator=seeded(2)) + grey).to(torch.uint8)


def _features(model: Any, *, image: Tensor) -> Tensor:
    return model(image)


class _Encoder:
    """In place of a run's autoencoder: pictures averaged over four by four pixels."""

    fingerprint = "check"

    def __call__(self, image: Tensor) -> Tensor:
        return torch.nn.functional.avg_pool2d(image.float() / 127.5 - 1, 4)
