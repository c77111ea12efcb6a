"""The options of `ldmctl sample`, in the order of its help."""

from pathlib import Path
from typing import Annotated

import typer

from ldmctl.cli.options import complete_plugin

Words = list[str] | None

# Which model.
Run = Annotated[
    str | None, typer.Option("--run", help="The run folder of fit-diffusion [default: runs/ldm]; runs/ldm@best names a snapshot.")
]
Ae = Annotated[
    str | None, typer.Option("--ae", help="A run folder of fit-ae whose decoder is used, such as one fitted with train=decoder.")
]

# How many pictures, and by which steps.
Count = Annotated[int | None, typer.Option("-n", "--count", min=1, help="How many pictures [default: 16].")]
Seed = Annotated[int | None, typer.Option("--seed", min=0, help="Seed of the first picture; the next ones count up [default: 0].")]
Seeds = Annotated[str | None, typer.Option("--seeds", help="The seeds, in place of --seed and -n: numbers and ranges, such as 0-63,100.")]
Steps = Annotated[int | None, typer.Option("--steps", min=1, help="Steps of the sampler per picture [default: 20].")]
Sampler = Annotated[
    str | None, typer.Option("--sampler", help="unipc, ddim, ... [default: unipc]", autocompletion=complete_plugin("sampler"))
]

# What they are asked to be.
Label = Annotated[
    Words, typer.Option("--label", help="A class: a name, class:NAME, index:N from 0, `none`, or `all`; give it again for several.")
]
Prompt = Annotated[
    Words, typer.Option("--prompt", help="Words; give it again for several. 'a cat :0.6 | a dog :0.4' blends their embeddings.")
]
Prompts = Annotated[Path | None, typer.Option("--prompts", metavar="FILE", help="A file with a prompt on each line.")]
Token = Annotated[
    Words, typer.Option("--token", metavar="FILE", help="A word or class of fit-token, for prompts or --label; give it again for several.")
]
Map = Annotated[
    str | None, typer.Option("--map", help="A map to paint by, or a folder of them, taken in turn; for models that listen to maps.")
]
Picture = Annotated[
    str | None, typer.Option("--picture", help="A small picture to make large, or a folder of them; for models that listen to them.")
]
Each = Annotated[int | None, typer.Option("--each", min=1, help="Pictures of each label or prompt, in place of -n.")]
Guidance = Annotated[float | None, typer.Option("--guidance", min=0, help="Classifier-free guidance; 1 is none [default: 1].")]
Negative = Annotated[str | None, typer.Option("--negative", help="A class, or words, for guidance to go away from.")]
Autoguide = Annotated[
    str | None, typer.Option("--autoguide", help="A weaker run of fit-diffusion, or a snapshot of this one, to go away from.")
]

# What they begin with, and what they are held to.
From = Annotated[str | None, typer.Option("--from", help="A picture to start from, or a folder of them, taken in turn.")]
Strength = Annotated[
    float | None, typer.Option("--strength", help="How much of --from may change: 0 nothing, 1 all [default: 0.6, with a mask 1].")
]
Variations = Annotated[
    str | None, typer.Option("--variations", help="Variations of this picture: --from it with --strength 0.75, a seed each.")
]
Mask = Annotated[str | None, typer.Option("--mask", help="A picture that is white where --from is painted anew.")]
Outpaint = Annotated[
    str | None, typer.Option("--outpaint", metavar="LEFT,TOP,RIGHT,BOTTOM", help="Pixels around the picture of --from to paint.")
]
Guide = Annotated[
    Words,
    typer.Option(
        "--guide",
        help="colour, perceptual, classifier, ...: what pictures should be like; its keys are guide.KEY=VALUE.",
        autocompletion=complete_plugin("guide"),
    ),
]
Size = Annotated[str | None, typer.Option("--size", metavar="WxH", help="Another size than the model was trained on, where it allows one.")]
Interpolate = Annotated[
    tuple[int, int] | None,
    typer.Option("--interpolate", metavar="SEED_A SEED_B", help="Pictures from the noise of one seed to that of another."),
]

# What is written, and where.
Trace = Annotated[bool, typer.Option("--trace", help="Also show how the first pictures come about: trace.png, trace.gif, trace.webp.")]
Again = Annotated[
    str | None,
    typer.Option("--again", metavar="FILE.png", help="Regenerate a picture that ldmctl made, from the settings stored in the file."),
]
Npz = Annotated[bool | None, typer.Option("--npz", help="Also write samples.npz, which tools that compute FID read.", show_default=False)]
Preview = Annotated[bool, typer.Option("--preview", help="Show the grid in the terminal, where it can draw.")]
Out = Annotated[str | None, typer.Option("--out", "-o", help="The folder for the pictures [default: samples; with --again: again].")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Make pictures again that are there already, and delete those that another command made.")
]
Devices = Annotated[int | None, typer.Option("--devices", min=1, help="Devices of this machine that share the pictures.")]
