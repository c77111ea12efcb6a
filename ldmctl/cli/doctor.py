"""ldmctl doctor: what this machine has, and what is missing; with --run, what is wrong with a diffusion run."""

import os
import platform
from importlib import import_module, metadata
from typing import Annotated, Any

import typer

from ldmctl import registry
from ldmctl.cli.options import Device, Json, print_json
from ldmctl.cli.output import put
from ldmctl.console import Console
from ldmctl.errors import ConfigError, PluginError, one_line

PACKAGES = ("ldmctl", "torch", "torchvision", "numpy", "pillow", "safetensors", "pydantic", "typer", "rich", "torchmetrics", "entrypoints")


def command(
    run: Annotated[
        str | None, typer.Option("--run", help="A run folder of fit-diffusion to examine; runs/ldm@best names a snapshot.")
    ] = None,
    out: Annotated[str | None, typer.Option("--out", help="Folder for checkup.png [default: checkup in the run folder].")] = None,
    device: Device = None,
    json: Json = False,
) -> None:
    """Versions, devices, bf16, whether torchvision imports, broken plugins, weights and data folders.

    With --run it answers "why does only noise come out?": reconstruct, whiten, denoise, labels, sample, average, a sentence each, and pictures.
    """
    if run is not None:
        examine_run(run, out, device, json)
        return
    if out is not None or device is not None:
        raise ConfigError("--out and --device go with --run FOLDER, the run folder of fit-diffusion to examine.")
    found = {**versions(), **devices(), **imports(), **plugin_state(), **places()}
    if json:
        print_json(found)
        return
    for name, value in found.items():
        lines = weights_lines(value) if name == "weights" else value if isinstance(value, list) else [value]
        put(f"{name:16} {lines[0] if lines else 'none'}")
        for line in lines[1:]:
            put(f"{'':16} {line}")


def examine_run(run: str, out: str | None, device: str | None, json: bool) -> None:
    """The links of a run's chain, one after the other, and the first that is broken."""
    from ldmctl.evaluation.checkup import checkup

    found = checkup(run, out=out, device=device or "auto", console=Console())
    if json:
        print_json(found)
        return
    for link in found["links"]:
        put(f"{link['name']:12} {link['verdict']:8} {link['sentence']}")
    put(f"{'picture':12} {found['picture'] or 'none, there is nothing to show'}\n{found['conclusion']}", lines=True)


def versions() -> dict[str, str]:
    """Versions of Python and of what ldmctl stands on."""
    out = {"python": f"{platform.python_version()} on {platform.system()} {platform.machine()}"}
    for name in PACKAGES:
        try:
            out[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            out[name] = "NOT INSTALLED"
    return out


def devices() -> dict[str, Any]:
    """Devices that torch sees, and the precision that `auto` takes on each."""
    try:
        import torch

        from ldmctl.training.engine import has_bf16
    except Exception as error:  # a broken torch is what a doctor is for
        return {"devices": [f"torch does not import: {one_line(error)}"]}
    rows = [
        f"cuda:{i} {torch.cuda.get_device_name(i)}, bf16 {yes(has_bf16(torch.device('cuda', i)))}" for i in range(torch.cuda.device_count())
    ]
    rows += ["mps"] if torch.backends.mps.is_available() else []
    return {
        "devices": [*rows, f"cpu, {os.cpu_count()} cores, {torch.get_num_threads()} threads, bf16 {yes(has_bf16(torch.device('cpu')))}"]
    }


def imports() -> dict[str, str]:
    """Whether torchvision, which is imported late, can be."""
    try:
        import_module("torchvision")
    except Exception as error:  # it raises RuntimeError beside a torch of another build
        return {"import torchvision": f"FAILS: {one_line(error)}"}
    return {"import torchvision": "works"}


def plugin_state() -> dict[str, Any]:
    """How many plugins there are, and which cannot be used."""
    count, broken = 0, []
    for kind in registry.GROUPS:
        for plugin in registry.plugins(kind):
            count += 1
            try:
                plugin.load()
            except PluginError as error:
                broken.append(str(error))
    return {
        "plugins": str(count),
        "broken plugins": broken,
        "plugin clashes": registry.clashes(),
        "ignored plugins": list(registry.strays()),
    }


def places() -> dict[str, Any]:
    """Where data and each file of weights are looked for, and what is there."""
    from ldmctl.storage import assets

    heads = assets.lpips_heads()
    weights = [
        {
            "name": item.name,
            "purpose": item.purpose,
            "path": str(path) if path else None,
            "looked_for": [str(place) for place in assets.weights_places(item.name)],
            "get": f"downloaded from {item.url} when it is needed and downloads are allowed",
        }
        for item, path in assets.weights_report()
    ]
    weights.append(
        {
            "name": assets.LPIPS_HEADS,
            "purpose": "LPIPS (its learned heads)",
            "path": str(heads) if heads else None,
            "looked_for": ["the installed torchmetrics"],
            "get": "pip install 'torchmetrics>=1.5'",
        }
    )
    return {"data folder": str(assets.data_root()), "offline": yes(assets.offline()), "weights": weights}


def weights_lines(weights: list[dict[str, Any]]) -> list[str]:
    """What each file is for and where it is, or where it was looked for and how it is got."""
    lines = []
    for item in weights:
        lines.append(f"{'found  ' if item['path'] else 'MISSING'} {item['name']}, for {item['purpose']}")
        lines += [f"  at {item['path']}"] if item["path"] else [*(f"  not at {place}" for place in item["looked_for"]), f"  {item['get']}"]
    return lines


def yes(holds: bool) -> str:
    """yes or no."""
    return "yes" if holds else "no"
