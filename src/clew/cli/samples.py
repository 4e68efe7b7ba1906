"""``clew samples``: the texts that a run knows best or worst, and the map of its training dynamics."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clew.cli.finding import find_run, workspace_of
from clew.cli.marking import print_marked
from clew.cli.text import number
from clew.errors import UserError

if TYPE_CHECKING:
    from clew.cli.parser import Parser
    from clew.inspection.published import Inspection, Row
    from clew.inspection.samples import Ids
    from clew.runs import Run

_SHOWN = 10


def configure(parser: Parser, verb: str) -> None:
    """Add the arguments."""
    parser.add_argument("name", metavar="RUN", help="one that was inspected (clew inspect)")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--hardest", type=int, metavar="N", help=f"those of the highest loss (the default, {_SHOWN})")
    which.add_argument("--easiest", type=int, metavar="N", help="those of the lowest loss")
    which.add_argument("--ids", metavar="IDS", help="these: numbers with commas between them, or a file of numbers")
    which.add_argument("--cluster", type=int, metavar="K", help="the hardest of a cluster")
    which.add_argument("--map", action="store_true", help="mean and variance of each loss over all inspections")
    parser.add_argument("--count", type=int, metavar="N", default=_SHOWN, help="of a cluster (default: %(default)s)")
    parser.add_argument("--split", default="train", help="whose samples (default: train)")
    parser.add_argument("--inspection", type=int, metavar="STEP", help="the one of this step (default: the newest)")


def main(arguments: Namespace) -> int:
    """Print samples, or draw the map."""
    run = find_run(workspace_of(arguments), arguments.name, purpose="has no samples of its own")
    if arguments.map:
        return _draw_map(run, arguments.split)
    from clew.inspection.published import inspection

    found = inspection(run.path, arguments.split, arguments.inspection)
    clusters = found.points()[2]
    for row in found.rows(_chosen(found, arguments)):
        _print(row, int(clusters[row.id]))
    return 0


def _chosen(found: Inspection, arguments: Namespace) -> Ids:
    """The numbers of the samples to show, in the order in which they are shown."""
    import numpy as np

    from clew.inspection.choosing import by_loss

    if arguments.ids is not None:
        return _listed(arguments.ids)
    loss = found.numbers("loss")
    having = np.flatnonzero(~np.isnan(loss))
    if arguments.cluster is not None:
        having = having[found.points()[2][having] == arguments.cluster]
        if not len(having):
            raise UserError(f"there is no cluster {arguments.cluster}", where=found.path.name, hint=_clusters(found))
    counts = (arguments.easiest, arguments.hardest, arguments.count if arguments.cluster is not None else _SHOWN)
    count = next(one for one in counts if one is not None)
    if count < 1:
        raise UserError("at least one sample can be shown", where="samples")
    return by_loss(having, loss, hardest=arguments.easiest is None)[:count]


def _clusters(found: Inspection) -> str:
    count = len(found.summary["clusters"])
    return f"they count from 1 to {count}" if count else "it was made without clusters"


def _listed(text: str) -> Ids:
    from clew.inspection.id_lists import check_ids, read_ids

    words = text.split(",")
    if all(word.strip().isdigit() for word in words):
        return check_ids([int(word) for word in words], "--ids")
    return read_ids(Path(text))


def _print(row: Row, cluster: int) -> None:
    scores = {"loss": row.loss, "margin": row.margin}
    parts = [f"{name} {number(value)}" for name, value in scores.items() if value is not None]
    parts += [f"length {row.length}", *([f"cluster {cluster}"] if cluster else [])]
    parts += [f"{name} {_short(value)}" for name, value in row.fields.items()]
    print(f"sample {row.id}: {', '.join(parts)}")
    print_marked(row.text, row.tokens, row.token_losses)
    print()


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 40 else f"{text[:37]}..."


def _draw_map(run: Run, split: str) -> int:
    import numpy as np

    from clew.inspection.dynamics import REGIONS, dynamics, write_tables
    from clew.inspection.plots import Cloud, draw
    from clew.inspection.published import FOLDER, inspections

    found = dynamics(inspections(run.path, split), run.id)
    folder = run.path / FOLDER / f"map-{split}"
    folder.mkdir(exist_ok=True)
    steps = ", ".join(map(str, found.steps))
    regions = found.regions
    labels = ("variance of the loss", "mean loss in nats", "region")
    groups = np.array([REGIONS.index(region) for region in regions], dtype=np.float64)
    cloud = Cloud(found.variance, found.mean, groups, f"{split}, steps {steps}", labels, REGIONS)
    picture = folder / "map.png"
    picture.write_bytes(draw(cloud))
    shares = ", ".join(f"{regions.count(region):,} {region}" for region in REGIONS)
    print(f"{run.id}: {len(found.ids):,} samples of {split} over the inspections at steps {steps}: {shares}")
    for path in (picture, *write_tables(folder, found)):
        print(path)
    return 0
