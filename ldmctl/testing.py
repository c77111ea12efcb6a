"""Does a plugin keep the promise of its kind? `ldmctl plugins check` and the tests of third parties call these.

Each check makes the class with small inputs and calls every method. What is not as
`protocols.py` says is a PluginError with one complaint; a plugin that passes returns
nothing. Keywords are keys of the plugin's Config: name small ones to be quick.

    from ldmctl.testing import check_autoencoder
    check_autoencoder(LFQ, widths=[8, 16])
"""

import pickle
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial, wraps
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from pydantic import ValidationError
from torch import Tensor, nn

from ldmctl import images
from ldmctl.config import PluginConfig
from ldmctl.diffusion import CEILING, Noise, joined, levels, start, time_of
from ldmctl.errors import LdmctlError, PluginError, one_line
from ldmctl.protocols import Condition, Example
from ldmctl.registry import kind_of

Check = Callable[..., None]


def check(kind: str, cls: type, /, **options: Any) -> None:
    """The check of this kind; a PluginError says what is not as promised."""
    CHECKS[kind_of(kind)](cls, **options)


def _promise(kind: str) -> Callable[[Check], Check]:
    """Complaints start with the class, and the caller's random numbers stay as they were."""

    def decorate(function: Check) -> Check:
        @wraps(function)
        def checked(cls: type, /, *given: Any, **options: Any) -> None:
            try:
                with torch.random.fork_rng(devices=[]):
                    function(cls, *given, **options)
            except PluginError as error:
                raise PluginError(f"{cls.__name__} is not a good {kind}: {error}") from error.__cause__
            except LdmctlError:  # such as weights that are missing here
                raise
            except Exception as error:  # third-party code can do anything
                raise PluginError(f"{cls.__name__} is not a good {kind}: {one_line(error)}") from error

        return checked

    return decorate


# -- modules -----------------------------------------------------------------------


@_promise("autoencoder")
def check_autoencoder(cls: type, /, **options: Any) -> None:
    """Shapes, draws, penalties and facts, state, gradients, codes, and what it offers beyond; colour and, unless it is refused, grey."""
    for channels in (3, 1):
        with _refusal_allowed(channels == 1):
            make = _maker(cls, options, image_channels=channels)
            model = make()
            _check_coding(model, channels)
            _check_reconstruction(model, channels)
            _check_codes(model, channels)
            _check_bits(model, channels)
            _check_decoding(make(), channels)
            _check_saved(make, model, partial(_through, channels))


def _through(channels: int, model: Any) -> Tensor:
    return model.decode(model.draw(model.encode(_picture(model, channels)), _generator()))


def _check_coding(model: Any, channels: int) -> None:
    """encode, draw and decode, with gradients switched off as when a cache is written."""
    _expect(_whole(model.factor) and _whole(model.channels), "factor and channels must be whole numbers from 1")
    _expect(model.rescale in ("channel", "common"), f"rescale is {model.rescale!r}, not 'channel' or 'common'")
    image = _picture(model, channels)
    height, width = (side // model.factor for side in image.shape[2:])
    model.eval()
    with torch.no_grad(), _calling("encode, draw or decode"):
        moments = model.encode(image)
        _expect(moments.ndim == 4 and moments.shape[2:] == (height, width), f"encode gave {_shape(moments)}, not [B,m,{height},{width}]")
        latent = model.draw(moments, _generator())
        wanted = (2, model.channels, height, width)
        _expect(latent.shape == wanted, f"draw gave {_shape(latent)}, not {list(wanted)}")
        before = torch.get_rng_state()
        _same(model.draw(moments, _generator()), latent, "draw does not give the same latent for the same generator", exactly=True)
        _expect(torch.equal(torch.get_rng_state(), before), "draw takes global random numbers though a generator is given")
        decoded = model.decode(latent)
        _expect(decoded.shape == image.shape, f"decode gave {_shape(decoded)}, not {_shape(image)}")
        _same(model.encode(image[:1]), moments[:1], "encode depends on the other pictures of a batch")
        _same(model.decode(latent[:1]), decoded[:1], "decode depends on the other pictures of a batch")


def _check_reconstruction(model: Any, channels: int) -> None:
    """forward and after_step, as in training."""
    image = _picture(model, channels)
    model.train()
    before = _state(model)
    with _calling("forward"):
        torch.manual_seed(0)
        out = model(image, _generator())
        torch.manual_seed(0)
        again = model(image, _generator())
        picture, penalties, facts = out.image, out.penalties, out.facts
    changed = [name for name, value in _state(model).items() if not torch.equal(value, before[name])]
    _expect(not changed, f"forward changes {', '.join(changed)}; change state in after_step, which runs once per step")
    _same(again.image, picture, "forward twice with equal random numbers gives two pictures", exactly=True)
    _expect(picture.shape == image.shape, f"forward gave a picture {_shape(picture)}, not {_shape(image)}")
    for name, value in penalties.items():
        _expect(isinstance(value, Tensor) and value.ndim == 0, f"penalty {name!r} is not a scalar tensor")
        _expect(value.isfinite().item(), f"penalty {name!r} is {value.item()}")
    for name, value in facts.items():
        _expect(isinstance(value, Tensor) and not value.requires_grad, f"fact {name!r} is not a detached tensor")
        _expect(value.ndim == (1 if name.endswith("_counts") else 0), f"fact {name!r} has shape {_shape(value)}; only _counts are lists")
    _check_gradients(model, (picture - image).square().mean() + sum(penalties.values()))
    if (layer := getattr(model, "last_layer", None)) is not None:
        _expect(any(layer is parameter for parameter in model.parameters()), "last_layer is not one of its parameters")
        _expect(layer.grad is not None and layer.grad.any(), "no gradient reaches last_layer")
    if hasattr(model, "after_step"):
        for _ in range(3):
            with _calling("after_step"):
                model(image, _generator())
                names = model.after_step()
            _expect(isinstance(names, Sequence) and not isinstance(names, str), f"after_step returns {names!r}, not a list of names")
            unknown = set(names) - set(model.state_dict())
            _expect(not unknown, f"after_step names {sorted(unknown)}, which the module does not have")


def _check_codes(model: Any, channels: int) -> None:
    """codes and lookup, where they exist."""
    _expect(hasattr(model, "codes") == hasattr(model, "lookup"), "codes and lookup come together or not at all")
    if not hasattr(model, "codes"):
        _expect(not hasattr(model, "code_count"), "code_count counts codes, and there is no method `codes`")
        return
    model.eval()
    with torch.no_grad(), _calling("codes or lookup"):
        moments = model.encode(_picture(model, channels))
        codes = model.codes(moments)
        _expect(not codes.is_floating_point(), f"codes are {codes.dtype}, not integers")
        _expect(codes.shape == (2, *moments.shape[2:]), f"codes gave {_shape(codes)}, not [B,h,w]")
        if hasattr(model, "code_count"):
            _expect(_whole(model.code_count), f"code_count is {model.code_count!r}, not a whole number from 1")
            lowest, highest = codes.min().item(), codes.max().item()
            _expect(
                lowest >= 0 and highest < model.code_count, f"codes go from {lowest} to {highest}, and code_count is {model.code_count}"
            )
        found = model.lookup(codes)
        _expect(found.shape == moments.shape, f"lookup gave {_shape(found)}, not {_shape(moments)}")
        pictures = model.decode(model.draw(found)), model.decode(model.draw(moments))
        _same(*pictures, "a picture decoded from its codes is not the one decoded from its moments")


def _check_bits(model: Any, channels: int) -> None:
    """bits, where it exists."""
    if not hasattr(model, "bits"):
        return
    model.eval()
    with torch.no_grad(), _calling("bits"):
        bits = model.bits(model.encode(_picture(model, channels)))
        _expect(bits.shape == (2,), f"bits gave {_shape(bits)}, not [B]")
        _expect(bits.isfinite().all() and (bits >= 0).all(), f"bits are {bits.tolist()}; they must be finite and not negative")


def _check_decoding(model: Any, channels: int) -> None:
    """decoding, where it exists, names submodules that decode needs and encode does without. Changes the model."""
    names = getattr(model, "decoding", None)
    if names is None:
        return
    _expect(isinstance(names, Sequence) and not isinstance(names, str) and names, f"decoding is {names!r}, not a list of names")
    parts = {name: part for name, part in model.named_modules() if name}
    unknown = [name for name in names if name not in parts]
    _expect(not unknown, f"decoding names {unknown}, which are no submodules")
    image = _picture(model, channels)
    model.eval()
    with torch.no_grad(), _calling("encode, codes or decode"):
        moments = model.encode(image)
        codes = model.codes(moments) if hasattr(model, "codes") else None
        decoded = model.decode(model.draw(moments, _generator()))
        for value in {id(value): value for name in names for value in parts[name].parameters()}.values():
            value.add_(0.05 * _random(*value.shape, seed=1))
        _same(model.encode(image), moments, f"encode uses {_few(names)}, which decoding leaves to decode alone", exactly=True)
        if codes is not None:
            _expect(torch.equal(model.codes(moments), codes), f"codes use {_few(names)}, which decoding leaves to decode alone")
        _differs(model.decode(model.draw(moments, _generator())), decoded, "decode does not depend on what decoding names")


@_promise("discriminator")
def check_discriminator(cls: type, /, **options: Any) -> None:
    """Maps of logits, one list for a batch, with gradients to the picture and to all parameters."""
    for channels in (3, 1):
        with _refusal_allowed(channels == 1):
            make = _maker(cls, options, image_channels=channels)
            model = make()
            image = _random(4, channels, 64, 64).clamp(-1, 1).requires_grad_()
            with _calling("forward"):
                maps = model(image)
            _expect(isinstance(maps, list) and maps, f"forward gave {type(maps).__name__}, not a list of maps")
            for each in maps:
                _expect(each.ndim == 4 and each.shape[:2] == (4, 1) and each.numel(), f"a map of logits is {_shape(each)}, not [B,1,*,*]")
            _check_gradients(model, sum(each.float().square().mean() for each in maps))
            _expect(image.grad is not None and image.grad.any(), "no gradient reaches the picture")
            _check_saved(make, model, partial(_scores, channels))


def _scores(channels: int, model: Any) -> Tensor:
    return model(_random(4, channels, 64, 64))[0]


@_promise("denoiser")
def check_denoiser(cls: type, /, **options: Any) -> None:
    """Shapes, and that it listens to x, time and every part of a condition that it takes."""
    parts = {"vector": ("vector_dim", (2, 6)), "tokens": ("token_dim", (2, 3, 6)), "maps": ("map_channels", (2, 6, 16, 8))}
    _check_listening(cls, options, {}, None)
    for part, (name, shape) in parts.items():
        with _refusal_allowed(True):
            _check_listening(cls, options, {name: 6}, Condition(**{part: _random(*shape)}))


def _check_listening(cls: type, options: Mapping[str, Any], sizes: dict[str, int], condition: Condition | None) -> None:
    context = {"vector_dim": 0, "token_dim": 0, "map_channels": 0, **sizes}
    make = _maker(cls, options, channels=4, size=(16, 8), **context)
    model = make()
    x, timestep = _random(2, 4, 16, 8), torch.tensor([3.0, 870.5])
    with _calling("forward"):
        out = model(x, timestep, condition)
    _expect(out.shape == x.shape, f"forward gave {_shape(out)}, not {_shape(x)}")
    _check_gradients(model, (out.float() - 1).square().mean())
    model.eval()
    with torch.no_grad(), _calling("forward"):
        for value in model.parameters():  # a network that starts as 0 listens to nothing yet
            value.add_(0.05 * _random(*value.shape))
        out = model(x, timestep, condition)
        _differs(model(x + _random(*x.shape, seed=1), timestep, condition), out, "the prediction does not depend on x")
        _differs(model(x, timestep + 100, condition), out, "the prediction does not depend on the timestep")
        _same(model(x[:1], timestep[:1], _first(condition)), out[:1], "the prediction depends on the other latents of a batch")
        if condition is not None:
            louder = Condition(*(None if part is None else part + 1 for part in condition))
            _differs(model(x, timestep, louder), out, f"the prediction does not depend on the condition, though {sizes} was promised")
            _expect(model(x, timestep, None).shape == x.shape, "a missing condition changes the shape")
    _check_saved(make, model, lambda model: model(x, timestep, condition))


@_promise("perceptual")
def check_perceptual(cls: type, /, **options: Any) -> None:
    """A distance per picture: 0 when equal, with finite gradients to the first picture only."""
    for channels in (3, 1):
        with _refusal_allowed(channels == 1):
            model = _maker(cls, options, image_channels=channels)()
            trained = [name for name, value in model.named_parameters() if value.requires_grad]
            _expect(not trained, f"{_few(trained)} would be trained; a measure has no trained parameters")
            image, target = (_random(2, channels, 64, 64, seed=seed).clamp(-1, 1).requires_grad_() for seed in (0, 1))
            model.eval()
            with _calling("forward"):
                distance = model(image, target)
                equal = model(target, target)
            _expect(distance.shape == (2,), f"forward gave {_shape(distance)}, not [B]")
            _expect((distance > 0).all(), "different pictures have distance 0 or less")
            _expect(equal.abs().max() < 1e-5, f"equal pictures have distance {equal.abs().max().item():.3g}")
            distance.sum().backward()
            _expect(image.grad is not None and image.grad.any(), "no gradient reaches the picture")
            _expect(target.grad is None or not target.grad.any(), "a gradient flows into the target")
            _expect(_gradient_at_equal(model, target.detach()).isfinite().all(), "the gradient at equal pictures is not finite")
            _same(model(image[:1], target[:1]), distance[:1], "a distance depends on the other pictures of a batch")
            _same(model.train()(image, target), distance, "a distance differs in training mode")


def _gradient_at_equal(model: nn.Module, target: Tensor) -> Tensor:
    image = target.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(image, target).sum(), image)
    return gradient


@_promise("conditioner")
def check_conditioner(cls: type, given: Any = None, /, **options: Any) -> None:
    """What was announced, of what is given for three pictures and of nothing.

    `given` is by default three labels (of three classes, the last -1), or captions or maps where tokens or maps are announced.
    """
    make = _maker(cls, options, classes=["cat", "dog", "emu"])
    model = make()
    sizes = {"vector": model.vector_dim, "tokens": model.token_dim, "maps": model.map_channels}
    for name, size in sizes.items():
        _expect(size == 0 or _whole(size), f"the announced size of {name} is {size!r}")
    _expect(any(sizes.values()), "vector_dim, token_dim and map_channels are all 0: nothing is said")
    if given is None:
        captions, maps = ["a cat", "", "a dog and an emu"], torch.randint(0, 2, (3, 1, 16, 16), generator=_generator())
        given = captions if model.token_dim else maps if model.map_channels else torch.tensor([2, 0, -1])
    model.eval()
    with _calling("encode or null"):
        said, nothing = model.encode(given), model.null(3)
        for condition, method in ((said, "encode"), (nothing, "null")):
            _check_condition(condition, sizes, method)
        _expect(any(not torch.equal(*pair) for pair in _pairs(said, nothing)), "null says the same as encode")
        for one, other in _pairs(model.encode(given), said):
            _same(one, other, "encode twice gives two conditions", exactly=True)
    both = joined(said, nothing)
    _expect(all(len(part) == 6 for part in both if part is not None), "conditions and null conditions do not join to one batch")
    model.train()
    if any(value.requires_grad for value in model.parameters()):
        parts = [part for condition in (model.encode(given), model.null(3)) for part in condition._replace(mask=None) if part is not None]
        _check_gradients(model, sum(part.float().square().sum() for part in parts))
    _check_saved(make, model, lambda model: next(part for part in model.encode(given) if part is not None))


def _check_condition(condition: Any, sizes: Mapping[str, int], method: str) -> None:
    _expect(isinstance(condition, Condition), f"{method} gave {type(condition).__name__}, not a Condition")
    for name, size in sizes.items():
        part = getattr(condition, name)
        _expect((part is not None) == (size > 0), f"{method} gave {'no ' if part is None else ''}{name}, and {size} was announced")
        width = 1 if name == "maps" else -1
        if part is not None:
            _expect(len(part) == 3 and part.shape[width] == size, f"{method} gave {name} {_shape(part)} for 3 pictures and size {size}")
    if condition.mask is not None:
        _expect(condition.tokens is not None and condition.mask.shape == condition.tokens.shape[:2], f"{method}: mask and tokens differ")
        _expect(condition.mask.dtype == torch.bool, f"{method} gave a mask of {condition.mask.dtype}, not bool")


# -- mathematics -------------------------------------------------------------------


@_promise("schedule")
def check_schedule(cls: type, /, **options: Any) -> None:
    """From data to noise, steadily, and found back from its own levels."""
    schedule = _maker(cls, options)()
    t = torch.linspace(0, 1, 1001, dtype=torch.float64)
    with _calling("marginal"):
        alpha, sigma = schedule.marginal(t)
        small = schedule.marginal(t.float())
        alone = torch.cat([schedule.marginal(each.reshape(1))[0] for each in t[::100]])
    for value in (alpha, sigma):
        _expect(value.shape == t.shape and value.dtype == t.dtype, f"marginal gave {_shape(value)} {value.dtype} for {_shape(t)} {t.dtype}")
        _expect(value.isfinite().all() and (value >= 0).all(), "alpha and sigma must be finite and not negative")
    _expect(small[0].dtype == torch.float32, f"marginal gave {small[0].dtype} for float32")
    _same(small[0].double(), alpha, "alpha differs between float32 and float64", tolerance=1e-3)
    _same(alone, alpha[::100], "alpha depends on the other times of a batch")
    _expect(abs(alpha[0] - 1) < 1e-3 and sigma[0] < 0.05, f"t = 0 is not data: alpha {alpha[0]:.3g}, sigma {sigma[0]:.3g}")
    _expect(sigma[-1] > 5 * alpha[-1], f"t = 1 is not noise: alpha {alpha[-1]:.3g}, sigma {sigma[-1]:.3g}")
    _expect(((sigma / alpha).diff() > 0).all(), "the level sigma / alpha does not rise everywhere")
    total = getattr(schedule, "timesteps", None)
    _expect(total is None or (_whole(total) and total > 1), f"timesteps is {total!r}, not a number of steps")
    if hasattr(schedule, "timestep"):
        with _calling("timestep"):
            told = schedule.timestep(t)
        _expect(told.shape == t.shape and (told.diff() > 0).all(), "timestep does not rise with t")
    times, sigmas = levels(schedule, 20)
    found = torch.cat([time_of(schedule, level.item()) for level in sigmas[:-1]])
    _same(found, times, "times cannot be found back from their levels", tolerance=1e-6)


@_promise("sampler")
def check_sampler(cls: type, /, **options: Any) -> None:
    """From noise to a Gaussian whose best estimate is known, each picture on its own."""
    sampler = _maker(cls, options)()
    t = torch.linspace(1, 1 / 200, 200, dtype=torch.float64)
    sigmas = torch.cat([torch.tan(t * (torch.pi / 2)).abs().clamp(max=CEILING), t.new_zeros(1)])
    mean, deviation = 0.3, 0.5

    def ideal(x: Tensor, sigma: Tensor) -> Tensor:
        _expect(
            0 < float(sigma) <= CEILING, f"it asks what is clean at sigma = {float(sigma):g}, and levels go from {CEILING:g} to above 0"
        )
        return mean + deviation**2 / (deviation**2 + float(sigma) ** 2) * (x - mean)

    def sampled(seeds: Sequence[int], denoise: Any = ideal, wanted: Tensor = sigmas, side: int = 8) -> Tensor:
        noise = Noise(seeds, (4, side, side))
        x = start(noise.first(), wanted)
        kept = x.clone(), wanted.clone()
        with _calling("the call"):
            out = sampler(denoise, x, wanted, noise)
        _expect(out.shape == x.shape and out.dtype == x.dtype, f"it gave {_shape(out)} {out.dtype} for {_shape(x)} {x.dtype}")
        _expect(torch.equal(x, kept[0]) and torch.equal(wanted, kept[1]), "it changes x or sigmas, which belong to the caller")
        _expect(out.isfinite().all(), "it leaves the finite numbers")
        return out

    several = sampled([0, 1, 2])
    _same(sampled([0, 1, 2]), several, "it gives two samples for the same noise; take random numbers from `noise` alone", exactly=True)
    _same(sampled([1]), several[1:2], "a sample depends on the others of its batch")
    for steps in (1, 2, 10):
        few = sigmas[torch.linspace(0, 200, steps + 1).long()]
        _same(
            sampled([0], lambda x, sigma: torch.full_like(x, 0.7), few), torch.full((1, 4, 8, 8), 0.7), f"{steps} steps miss a known answer"
        )
    many = sampled([5], side=96)
    found = f"mean {many.mean():.3f} and deviation {many.std():.3f}"
    _expect(
        abs(many.mean() - mean) < 0.05 and abs(many.std() - deviation) < 0.05,
        f"data of mean 0.3 and deviation 0.5 are sampled with {found}",
    )


# -- the world outside -----------------------------------------------------------------


@_promise("dataset")
def check_dataset(cls: type, /, **options: Any) -> None:
    """Items, labels and stamps of both splits, the same each time and in every process."""
    train, val = (_maker(cls, options, split=split)() for split in ("train", "val"))
    _expect(len(train) > 0, "there is nothing to train on")
    _expect(list(train.classes) == list(val.classes), "the two splits name different classes")
    names = list(train.classes)
    _expect(all(isinstance(name, str) for name in names) and len(set(names)) == len(names), "classes must be different strings")
    copy = _maker(cls, options, split="train")()
    with _calling("pickling"):
        sent = pickle.loads(pickle.dumps(train))
    for dataset in (train, val):
        for index in sorted({0, len(dataset) // 2, len(dataset) - 1} & set(range(len(dataset)))):
            _check_item(dataset, index, len(names))
    for index in {0, len(train) - 1}:
        for other, what in ((copy, "made again"), (sent, "sent to a worker")):
            _expect(other.stamp(index) == train.stamp(index), f"the stamp of item {index} changes when the dataset is {what}")
            _expect(_pixels(other[index]).equal(_pixels(train[index])), f"item {index} changes when the dataset is {what}")
    stamps = [train.stamp(index) for index in range(min(len(train), 50))]
    _expect(len(set(stamps)) == len(stamps), "two items have the same stamp")


def _check_item(dataset: Any, index: int, classes: int) -> None:
    with _calling(f"item {index}"):
        item, stamp = dataset[index], dataset.stamp(index)
    _expect(isinstance(item, Example), f"item {index} is {type(item).__name__}, not an Example")
    raw = isinstance(item.picture, Image.Image) or (getattr(item.picture, "ndim", 0) == 3 and str(item.picture.dtype).endswith("uint8"))
    _expect(raw, f"the picture of item {index} is neither a Pillow image nor uint8 [C,H,W]")
    _expect(isinstance(item.label, int) and -1 <= item.label < classes, f"item {index} has label {item.label!r} of {classes} classes")
    _expect(isinstance(item.text, str), f"item {index} has a caption of type {type(item.text).__name__}")
    _expect(isinstance(stamp, str) and stamp, f"item {index} has stamp {stamp!r}, not a string")
    _expect(_pixels(item).equal(_pixels(dataset[index])), f"item {index} is not the same the second time")


def _pixels(item: Example) -> Tensor:
    with _calling("decoding the picture"):
        return images.to_tensor(images.load(item.picture, channels=3))


@_promise("tracker")
def check_tracker(cls: type, /, **options: Any) -> None:
    """Two runs into one folder, the second going on from the first."""
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "samples" / "000001.png"
        images.write_png(picture, torch.zeros(3, 8, 8, dtype=torch.uint8))
        content = picture.read_bytes()
        for first in (0, 2):
            tracker = _maker(cls, options, run=Path(folder))()
            scalars = {"loss": 0.5, "denoiser/gradient": 1.0}
            with _calling("log, image or close"):
                tracker.log(first, scalars)
                tracker.image(first + 1, picture)
                tracker.log(first + 1, {"loss": float("nan")})
                tracker.close()
            _expect(scalars == {"loss": 0.5, "denoiser/gradient": 1.0}, "log changes the numbers it is given")
            _expect(picture.is_file() and picture.read_bytes() == content, "image changes the picture it is given")


# -- small parts -------------------------------------------------------------------


class _Refused(PluginError):
    """A constructor says in a PluginError that it does not serve this context."""


def _maker(cls: Any, options: Mapping[str, Any], **context: Any) -> Callable[..., Any]:
    """A function from a seed to an instance, after the config was looked at."""
    config = _checked_config(cls, options)

    def make(seed: int = 0) -> Any:
        torch.manual_seed(seed)
        try:
            with _calling("the constructor"):
                return cls(config, **context)
        except _Broken:
            raise
        except PluginError as error:
            raise _Refused(str(error)) from error

    return make


def _checked_config(cls: Any, options: Mapping[str, Any]) -> Any:
    _expect(isinstance(getattr(cls, "Config", None), type), "it has no nested class Config")
    _expect(issubclass(cls.Config, PluginConfig), "its Config is not a PluginConfig")
    try:
        config = cls.Config(type="check", **options)
    except ValidationError as error:
        raise PluginError(f"Config cannot be made of {dict(options)}: {one_line(error)}") from error
    with _calling("Config, written and read again,"):
        again = cls.Config.model_validate(config.model_dump(mode="json"))
    _expect(again == config, "Config is another one after it was written and read again")
    _expect(config.model_config.get("extra") == "forbid", "Config takes keys that it does not know")
    return config


@contextmanager
def _refusal_allowed(allowed: bool) -> Iterator[None]:
    """A plugin may say that it does not serve grey pictures, tokens or maps."""
    try:
        yield
    except _Refused:
        if not allowed:
            raise


class _Broken(PluginError):
    """Third-party code raised something that is not meant for the user."""


@contextmanager
def _calling(what: str) -> Iterator[None]:
    try:
        yield
    except LdmctlError:
        raise
    except Exception as error:  # third-party code can raise anything
        raise _Broken(f"{what} raises {one_line(error)}") from error


def _expect(holds: Any, complaint: str) -> None:
    if not holds:
        raise PluginError(complaint)


def _same(one: Tensor, other: Tensor, complaint: str, *, exactly: bool = False, tolerance: float = 1e-4) -> None:
    alike = one.shape == other.shape and (
        torch.equal(one, other) if exactly else torch.allclose(one, other, atol=tolerance, rtol=tolerance)
    )
    _expect(alike, complaint)


def _differs(one: Tensor, other: Tensor, complaint: str) -> None:
    _expect(not torch.allclose(one, other, atol=1e-7, rtol=1e-6), complaint)


def _check_gradients(model: nn.Module, loss: Any) -> None:
    """Every parameter that is trained gets a finite gradient."""
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    if isinstance(loss, Tensor) and loss.requires_grad:
        with _calling("backward"):
            loss.backward()
    silent = [name for name, value in trained.items() if value.grad is None]
    _expect(not silent, f"no gradient reaches {_few(silent)}")
    wild = [name for name, value in trained.items() if value.grad is not None and not value.grad.isfinite().all()]
    _expect(not wild, f"the gradient of {_few(wild)} is not finite")


def _check_saved(make: Callable[..., Any], model: Any, function: Callable[[Any], Tensor]) -> None:
    """The state is all that a model knows: another instance with it says the same."""
    other = make(seed=1)
    with _calling("load_state_dict"):
        other.load_state_dict(model.state_dict())
    with torch.no_grad(), _calling("a model loaded from its state"):
        pair = function(model.eval()), function(other.eval())
    _same(*pair, "a model loaded from its state_dict gives another result: something is kept outside of parameters and buffers")


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def _picture(model: Any, channels: int) -> Tensor:
    """[2,channels,H,W] in [-1, 1], higher than 31 and not square."""
    side = model.factor * -(-32 // model.factor)
    return _random(2, channels, side, side + model.factor).clamp(-1, 1)


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=_generator(seed))


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _first(condition: Condition | None) -> Condition | None:
    return condition and Condition(*(None if part is None else part[:1] for part in condition))


def _pairs(one: Condition, other: Condition) -> list[tuple[Tensor, Tensor]]:
    return [(a, b) for a, b in zip(one, other, strict=True) if a is not None and b is not None]


def _whole(value: Any) -> bool:
    return isinstance(value, int) and value >= 1


def _shape(value: Tensor) -> list[int]:
    return list(value.shape)


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


CHECKS: dict[str, Check] = {
    "autoencoder": check_autoencoder,
    "discriminator": check_discriminator,
    "schedule": check_schedule,
    "denoiser": check_denoiser,
    "sampler": check_sampler,
    "dataset": check_dataset,
    "perceptual": check_perceptual,
    "conditioner": check_conditioner,
    "tracker": check_tracker,
}
