"""Why does only noise come out? The chain of a diffusion run, link by link: a number, a sentence and rows of pictures for each.

reconstruct: cached latents decode to the pictures they were made of. whiten: they have mean 0 and deviation 1 as the run sees them.
denoise: one step from each of five noise levels. labels: they are those of the pictures, and help; where the network listens to any.
sample: all steps, from noise alone. average: the EMA weights, which all of this uses, against the raw ones. A link that fails does
not end the walk. `chain` has what is looked at, `diagnosis` the bounds.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ldmctl.config.schemas.shared import Compute
from ldmctl.console import Console
from ldmctl.diffusion.labels import learned_classes
from ldmctl.errors import LdmctlError, MismatchError
from ldmctl.evaluation.diagnosis import (
    Link,
    conclusion,
)
from ldmctl.evaluation.figures import captioned
from ldmctl.evaluation.latent_links import reconstruct, whiten
from ldmctl.evaluation.lineage import (
    SHOWN,
    Lineage,
    Row,
    open_lineage,
)
from ldmctl.evaluation.network_links import average, denoise, labels, sample
from ldmctl.pictures.album import refuse_foreign
from ldmctl.pictures.png import write_png
from ldmctl.storage import weights
from ldmctl.storage.apart import refuse, run_and_before
from ldmctl.storage.folder import make_folder
from ldmctl.storage.record import model_file
from ldmctl.training import engine as engines


@torch.no_grad()
def checkup(run: str, *, out: str | Path | None = None, device: Any = "auto", console: Console | None = None) -> dict[str, Any]:
    """{"run", "links": [{"name", "verdict", "sentence", "number", ...}], "conclusion", "picture"} of a run folder of fit-diffusion.

    checkup.png is written into `out`, or into checkup/ of the run folder. Fixed seeds: the same run gives the same numbers.
    """
    if out is not None:
        refuse(out, run_and_before(run), verb="doctor", owns=False)
    source = model_file(run, verb="fit-diffusion")
    if weights.read_header(source).get("kind") == "autoencoder":
        raise MismatchError(f"{run} is a run of fit-ae, which has one link alone: `ldmctl eval-lpips --run {run}` examines it.")
    lineage = open_lineage(source, engines.start(Compute(device=device)))
    folder = Path(out).expanduser() if out else lineage.folder / "checkup"
    make_folder(folder)
    picture = folder / "checkup.png"
    refuse_foreign(picture)

    walk: dict[str, Callable[[Lineage], tuple[Link, list[Row]]]]
    walk = {"reconstruct": reconstruct, "whiten": whiten, "denoise": denoise, "labels": labels, "sample": sample, "average": average}
    if not learned_classes(lineage.header):  # listens to none, or never saw any
        del walk["labels"]
    links, rows = [], []
    with (console or Console(quiet=True)).bar("checkup", len(walk), unit="links") as bar:
        for done, (name, look) in enumerate(walk.items(), start=1):
            try:
                link, shown = look(lineage)
            except LdmctlError as error:  # the other links are worth knowing all the same
                link, shown = Link(name, "broken", f"This could not be tried: {error}", change=f"see to this: {error}"), []
            links.append(link)
            rows += shown
            bar.advance(done, amount=done)

    description = " ".join(f"{link.name}: {link.verdict}. {link.sentence}" for link in links)
    if rows:
        write_png(
            picture, captioned(rows, columns=SHOWN), {"Description": f"Rows: {'; '.join(caption for caption, _ in rows)}. {description}"}
        )
    shown_at = str(picture) if rows else None
    return {"run": run, "links": [link.as_dict() for link in links], "conclusion": conclusion(links), "picture": shown_at}
