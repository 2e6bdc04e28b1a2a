"""The commands that use a finished run; like all of the command line they decide nothing."""

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter


def evaluate(
    *,
    encoder: Path,
    data: str,
    data_dir: Path | None = None,
    labels: str | None = None,
    device: str = "auto",
    finetune: Annotated[bool, Parameter(negative="")] = False,
    sgd_probe: Annotated[bool, Parameter(negative="")] = False,
    n_last_blocks: int = 4,
    avgpool_patch_tokens: Annotated[bool, Parameter(negative="")] = False,
    out: Path | None = None,
) -> int:
    """Evaluate what a bench has trained on other images or labels, without training; print a table.

    Examples:

        ssl-zoo eval --encoder runs/first --data folder:photos --labels labels.csv
        ssl-zoo eval --encoder runs/first/cells/dino-seed0 --data cifar10 --finetune
        ssl-zoo eval --encoder runs/first/cells/dino-seed0 --data cifar10 --sgd-probe --n-last-blocks 1

    Parameters
    ----------
    encoder
        A bench folder (all of its finished cells), a cell's folder or an encoder.safetensors.
    data
        The images: a name from `ssl-zoo list datasets`, or your own as folder:PATH, parquet:PATH, hf:NAME.
    data_dir
        Folder that holds `<data>/`; default SSL_ZOO_DATA, else a download is tried.
    labels
        A CSV file `path,label[,group][,split]`; about 100 labels are enough for a first ranking.
    device
        auto, cpu, cuda or cuda:N.
    finetune
        Also train a copy of each encoder further with a linear head; takes minutes for each.
    sgd_probe
        Also train the DINO paper's linear probe: 100 epochs of SGD on the frozen features.
    n_last_blocks
        Of a ViT, how many blocks' class tokens that probe sees; the paper takes 4 for ViT-S, 1 for ViT-B.
    avgpool_patch_tokens
        Of a ViT, also show that probe the mean patch token, as the paper does for ViT-B.
    out
        The folder for results.json, results.csv and report.html; default `evaluations/<data>` beside the
        encoders.
    """
    from ssl_zoo.bench.config import DataConfig
    from ssl_zoo.bench.evaluate import evaluate_run
    from ssl_zoo.bench.progress import Progress
    from ssl_zoo.evaluation.sgd_probe import LastBlocks

    progress = Progress()
    where = DataConfig(dir=str(data_dir) if data_dir else None, labels=labels)
    results = evaluate_run(
        encoder,
        data,
        where,
        device=device,
        finetune=finetune,
        probe=LastBlocks(n_last_blocks, avgpool_patch_tokens) if sgd_probe else None,
        out=out,
        progress=progress,
    )
    progress.show(results)
    return 0


def embed(
    *,
    encoder: Path,
    data: str,
    out: Path,
    data_dir: Path | None = None,
    split: Literal["all", "pretrain", "train", "test"] = "all",
    device: str = "auto",
    overwrite: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Write path, label and vector of every image to a Parquet or npz file.

    Example:

        ssl-zoo embed --encoder runs/first/cells/dino-seed0 --data folder:photos --out photos.parquet

    Parameters
    ----------
    encoder
        A cell's folder or an encoder.safetensors.
    data
        The images: a name from `ssl-zoo list datasets`, or your own as folder:PATH, parquet:PATH, hf:NAME.
    out
        A file that ends in .parquet (columns path, label, vector) or .npz (arrays paths, labels, vectors).
    data_dir
        Folder that holds `<data>/`; default SSL_ZOO_DATA, else a download is tried.
    split
        Which images; all: each one once.
    device
        auto, cpu, cuda or cuda:N.
    overwrite
        Replace a file that exists.
    """
    from ssl_zoo.bench.config import DataConfig
    from ssl_zoo.bench.evaluate import open_as_trained
    from ssl_zoo.evaluation.embed import check_target, embed_dataset
    from ssl_zoo.evaluation.encoder import load_encoder
    from ssl_zoo.train import resolve_device

    check_target(out, overwrite=overwrite)
    loaded = load_encoder(encoder)
    dataset = open_as_trained(encoder, data, DataConfig(dir=str(data_dir) if data_dir else None))
    place = resolve_device(device)
    count = embed_dataset(loaded, dataset, out, split=split, overwrite=overwrite, device=place)
    print(f"{count:,} vectors of {loaded.out_dim:,} numbers in {out}")
    return 0


def attention(
    *,
    encoder: Path,
    image: Path,
    threshold: float = 0.6,
    layer: int = -1,
    image_size: int | None = None,
    masks: Path | None = None,
    device: str = "auto",
    out: Path | None = None,
) -> int:
    """Draw where a ViT looks: a map per head, their mean, the patches that hold most of it, a contact sheet.

    Examples:

        ssl-zoo attention --encoder runs/first/cells/dino-seed0 --image photo.jpg
        ssl-zoo attention --encoder runs/first/cells/dino-seed0 --image photos --masks masks

    Parameters
    ----------
    encoder
        A cell's folder or an encoder.safetensors, of a ViT.
    image
        An image of any size, or a folder of them.
    threshold
        The share of the attention that the mask keeps.
    layer
        Which block: 0 is the first, -1 the last.
    image_size
        The shorter side in pixels that images are resized to; default the encoder's own.
    masks
        A folder with a mask for each image, of the same name: also print their overlap with the attention.
    device
        auto, cpu, cuda or cuda:N.
    out
        The folder for the pictures; default `attention` beside the encoder.
    """
    from ssl_zoo.evaluation.attention_files import overlaps, write_attention
    from ssl_zoo.evaluation.encoder import load_encoder
    from ssl_zoo.train import resolve_device

    loaded = load_encoder(encoder).to(resolve_device(device))
    folder = out or (encoder.parent if encoder.suffix == ".safetensors" else encoder) / "attention"
    how: dict[str, Any] = {"threshold": threshold, "layer": layer, "image_size": image_size}
    rows = [] if masks is None else overlaps(loaded, image, masks, **how)
    count = write_attention(loaded, image, folder, **how)
    print(f"{count:,} image{'s' if count > 1 else ''}: {folder / 'attention.png'}, and a folder for each")
    if rows:
        print(f"{'Jaccard index':<16}{'mean map':>10}{'best head':>11}")
        for weights, mean_map, best_head in rows:
            print(f"{weights:<16}{mean_map:>10.3f}{best_head:>11.3f}")
    return 0


def reproduce(
    run: Path,
    /,
    *,
    cells: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    data_dir: Path | None = None,
    out: Path | None = None,
    plugin: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
) -> int:
    """Run finished cells of a bench again and say whether the results are the same.

    bit-equal: every score and weight. within seed noise: no further than two seeds lie apart. different: in
    what, and which versions or hardware changed. Exit code 1 if a cell is different or fails.

    Examples:

        ssl-zoo reproduce runs/first
        ssl-zoo reproduce runs/first --cells dino-seed0 --data-dir DATA

    Parameters
    ----------
    run
        A folder made by `ssl-zoo bench`.
    cells
        Only these, as they are named in its folder `cells`.
    data_dir
        Folder that holds `<dataset>/`, if it is not where it was.
    out
        The folder for the second run; default `<run>-again`. The same command goes on where it stopped.
    plugin
        Modules or .py files of its plan, which are code: only those given here are loaded.
    """
    from rich.console import Console
    from rich.markup import escape

    from ssl_zoo.bench.progress import Progress
    from ssl_zoo.bench.reproduce import reproduce as run_again

    found = run_again(
        run, out=out, data_dir=data_dir, only=cells or (), plugins=plugin or (), progress=Progress()
    )
    console = Console(highlight=False)
    for cell in found:
        console.print(f"{cell.cell:<18} [bold]{cell.verdict}[/]: {escape(cell.words)}")
    return 0 if all(cell.agrees for cell in found) else 1
