"""Features of a directory of images with timm, after its inference.py.

python -m benchmarks.peers.timm_script DIRECTORY CHECKPOINT PRECISION WORKERS OUT
"""

from __future__ import annotations

import sys
from contextlib import nullcontext

import torch

from benchmarks.peers.tables import write
from benchmarks.peers.torchvision_shim import import_timm

BATCH = 32


def main(directory: str, checkpoint: str, precision: str, workers: str, out: str) -> None:
    """Reads, computes, writes.

    Args:
        directory: of images.
        checkpoint: weights; see `benchmarks.weights`.
        precision: `float32` or `bfloat16`.
        workers: processes that decode.
        out: the table.
    """
    timm = import_timm()
    from timm.data import create_dataset, create_loader, resolve_data_config

    device = torch.device("cpu")
    model = timm.create_model("legacy_xception", num_classes=0, checkpoint_path=checkpoint)
    model = model.eval().to(device, memory_format=torch.channels_last)
    config = resolve_data_config({}, model=model)
    dataset = create_dataset("", root=directory)
    loader = create_loader(
        dataset,
        batch_size=BATCH,
        use_prefetcher=False,
        num_workers=int(workers),
        device=device,
        **{name: config[name] for name in ("input_size", "interpolation", "mean", "std", "crop_pct")},
    )
    lower = torch.autocast("cpu", dtype=torch.bfloat16) if precision == "bfloat16" else nullcontext()
    found = []
    with torch.inference_mode(), lower:
        for images, _ in loader:
            found.append(model(images.to(memory_format=torch.channels_last)).float())
    write(out, dataset.filenames(basename=True), torch.cat(found).numpy())


if __name__ == "__main__":
    main(*sys.argv[1:])
