"""ldmctl data: a look at pictures before anything is trained."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ldmctl.cli.options import Json, Quiet, complete_data, print_json
from ldmctl.cli.output import put
from ldmctl.console import Console

app = typer.Typer(no_args_is_help=True, help="Look at pictures before anything is trained.")


@app.command()
def check(
    data: Annotated[
        str, typer.Argument(metavar="DIR|NAME", help="A folder of pictures or a name in configs/data.", autocompletion=complete_data)
    ],
    size: Annotated[
        int | None, typer.Option("--size", min=4, help="The image.size that is planned [default: that of fit-ae for this data].")
    ] = None,
    channels: Annotated[int | None, typer.Option("--channels", min=1, max=4, help="The image.channels that is planned.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for contact.png and check.json [default: none are written].")
    ] = None,
    write_split: Annotated[
        bool, typer.Option("--write-split", help="Write metadata.jsonl with a column `split`, near-duplicates on one side.")
    ] = False,
    write_metadata: Annotated[
        bool, typer.Option("--write-metadata", help="Write metadata.jsonl with the labels and captions that were found, to be edited.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """How many pictures, their sizes and modes, broken ones, near-duplicates, classes, captions, maps, colours; and what to change."""
    from ldmctl.pictures.checking import check_data

    image = {name: value for name, value in {"size": size, "channels": channels}.items() if value is not None}
    found = check_data(data, image, out=out, split=write_split, metadata=write_metadata, console=Console(quiet=quiet))
    if json:
        print_json(found)
        return
    for line in lines(found):
        put(line)


def lines(found: dict[str, Any]) -> list[str]:
    """What a person reads: a line for each thing, then the sentences."""
    sizes, colour, twice = found["sizes"], found["colour"], found["duplicates"]
    side, crop = sizes["shorter_side"], sizes["cropped_away"]
    rows = {
        "pictures": ", ".join(f"{split} {count:,}" for split, count in found["splits"].items()),
        "unreadable": f"{found['broken']['count']:,}",
        "sizes": f"shorter side {side['least']} to {side['most']}, median {side['median']:g}; most often "
        + ", ".join(f"{name} ({count:,})" for name, count in sizes["common"][:3]),
        "crop": f"{sizes['not_square']:,} are not square; a square of the middle leaves out {crop['mean']:.1%} on average, {crop['most']:.0%} at most",
        "modes": ", ".join(f"{mode} {count:,}" for mode, count in found["modes"].items()),
        "duplicates": f"{twice['spare']:,} spare, in sets: {twice['sets']:,}, in train and val at once: {twice['leaks']:,}",
        "classes": classes_in_words(found["classes"]["counts"]),
        "captions": captions_in_words(found["captions"]),
        **({"maps": maps_in_words(found["maps"])} if found["maps"] else {}),
        "colour": f"mean {numbers(colour['mean'])}, standard deviation {numbers(colour['deviation'])}; {colour['grey']:,} of {colour['of']:,} grey",
    }
    said = [f"{name:11} {value}" for name, value in rows.items()]
    said += [f"  {each['name']}: {each['why']}" for each in found["broken"]["first"]]
    said += [f"  in both splits: {', '.join(group)}" for group in twice["leaked"]]
    return [*said, *found["sentences"], *[f"wrote {each}" for each in found["written"]]]


def classes_in_words(counts: dict[str, int]) -> str:
    """`3: shirt 40, shoe 22, hat 2`, the twelve largest."""
    ordered = sorted(counts.items(), key=lambda each: -each[1])
    shown = ", ".join(f"{name} {count:,}" for name, count in ordered[:12])
    return f"{len(counts)}: {shown}{' ...' if len(ordered) > 12 else ''}" if counts else "none"


def captions_in_words(found: dict[str, Any] | None) -> str:
    """How many, how different, how long."""
    if found is None:
        return "none"
    words = found["words"]
    return f"{found['count']:,}, {found['different']:,} different; words of one: {words['median']:g} in the middle, {words['most']} at most"


def maps_in_words(found: dict[str, Any]) -> str:
    """How many, of which kind, and the classes by their share of the pixels, the twelve largest."""
    ordered = sorted(found["classes"], key=lambda each: -each["share"])
    shown = ", ".join(f"{each['name']} {each['share']:.1%}" for each in ordered[:12])
    kind = f"{len(ordered)} classes: {shown}{' ...' if len(ordered) > 12 else ''}" if ordered else "continuous"
    unlabelled = f"; {found['unlabelled']:.1%} of the pixels without a class" if found["unlabelled"] else ""
    resized = f"; {found['resized']:,} of another size than their pictures, which is mended" if found["resized"] else ""
    return f"{found['count']:,}, {kind}{unlabelled}{resized}"


def numbers(values: list[float]) -> str:
    """`0.5 0.4 0.4`."""
    return " ".join(f"{value:.3g}" for value in values)
