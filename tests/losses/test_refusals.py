"""A first stage that cannot learn what it was asked to is refused before its first step."""

import pytest

from ldmctl import registry
from ldmctl.errors import ConfigError, MissingError

CRITIC = ["discriminator={type: patchgan, widths: [8]}", "adversarial.start=1", "adversarial.warmup=1", "adversarial.ramp=2"]


def test_balancing_at_a_last_layer_that_does_not_learn_is_refused_before_the_first_step(tmp_path, fit_ae, monkeypatch):
    from ldmctl_plugins.autoencoders.vae import VAE

    begun = VAE.__init__

    def frozen(self, *given, **more):
        begun(self, *given, **more)
        self.last_layer.requires_grad_(False)

    monkeypatch.setattr(VAE, "__init__", frozen)
    with pytest.raises(ConfigError, match="balance=last-layer needs a last layer that learns, that of vae is frozen"):
        fit_ae(tmp_path / "ae", *CRITIC, "adversarial.balance=last-layer")
    assert not (tmp_path / "ae").exists()
    fit_ae(tmp_path / "ae", *CRITIC)


@pytest.mark.parametrize(
    "words",
    [
        ["losses.pixel_weight=0"],
        ["losses.shares={perceptual: 1}"],
        [*CRITIC, "losses.shares={perceptual: 0.9, adversarial: 0.1}"],
        ["losses.pixel_weight=0", "losses.perceptual_weight=0", "perceptual=features"],
    ],
)
def test_a_run_that_nothing_holds_to_its_pictures_is_refused(tmp_path, fit_ae, words):
    with pytest.raises(ConfigError, match="nothing holds a reconstruction to its picture"):
        fit_ae(tmp_path / "ae", *words)


@pytest.mark.parametrize("words", [["losses.pixel_weight=0"], ["losses.shares={perceptual: 1}"]])
def test_the_only_loss_on_the_picture_is_not_skipped_where_its_weights_are_missing(tmp_path, fit_ae, monkeypatch, words):
    build = registry.build

    def missing(kind, *given, **more):
        if kind == "perceptual":
            raise MissingError("There are no weights.")
        return build(kind, *given, **more)

    monkeypatch.setattr(registry, "build", missing)
    with pytest.raises(MissingError, match=r"There are no weights.*\n.*nothing would hold a reconstruction to its picture"):
        fit_ae(tmp_path / "ae", "perceptual=features", "losses.perceptual_missing=skip", *words)
    assert not (tmp_path / "ae").exists()
