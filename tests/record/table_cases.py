"""The commands of a record that make tables of images, and those that check, join and continue them."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

from tests.record.runner import Case, Do, Held, Run

MACHINE = "--batch-size 4 --workers 2 --device cpu"
RANDOM = "--weights none --seed 7"
SMALL = f"{RANDOM} --image-size 71 {MACHINE}"
"""A network at its smallest images, for `features`."""
CLASSES = f"{RANDOM} --classes 5 {MACHINE}"
"""With its classifier, for `classify`: these images are of full size."""
ONE = f"{RANDOM} --image-size 71 --batch-size 1 --workers 2 --device cpu --part-rows 2 --part-seconds 1000"
"""Image by image and many parts, so that a run can be held at a known row."""

NAMES = b"".join(f"in/photos/{name}\n".encode() for name in ("a.jpg", "b.JPG", "c.png", "sub/d.jpg"))
MORE = NAMES + b"in/photos/none.jpg\nin/photos/sub/e.bmp\nin/photos/z.tif\n"
NULS = b"in/hostile/empty.png\0in/hostile/latin-\xe9.jpg\0none\0"
NEW_LINE = "in/hostile/new\nline.jpg"
FIRST_PARTS = ("part-00000.*[!p]", "part-00001.*[!p]")
"""Of finished parts; `.tmp` is what is being written."""


def held(target: str, end: signal.Signals | None = signal.SIGKILL, meanwhile: tuple[Run, ...] = ()) -> Held:
    """A run that has two parts of two rows each when it is ended."""
    place = target if target.endswith("/") else f"{target}.partial/"
    wait = tuple(place + one for one in FIRST_PARTS)
    rest = MORE.removeprefix(NAMES) if end is None else b""
    return Held(f"features - {ONE} -o {target}", stdin=rest, names=NAMES, wait=wait, end=end, meanwhile=meanwhile)


def _edit(name: str, change: str) -> Do:
    """Damages a table in text: its second row goes, or is there twice, or holds no number."""

    def act(folder: Path) -> None:
        lines = (folder / name).read_bytes().splitlines(keepends=True)
        row = lines[2]
        changed = {"dropped": [], "doubled": [row, row], "nan": [row.rsplit(b",", 1)[0] + b",nan\n"]}[change]
        (folder / name).write_bytes(b"".join([*lines[:2], *changed, *lines[3:]]))

    return Do(f"the second row of {name}: {change}", act)


def _mend(folder: Path) -> None:
    shutil.copyfile(folder / "in/photos/a.jpg", folder / "in/hostile/empty.png")


def _replace(folder: Path) -> None:
    shutil.copyfile(folder / "in/photos/c.png", folder / "in/photos/b.JPG")


def _cases(*cases: tuple[str, tuple[Run | Do, ...]]) -> list[Case]:
    return [Case(name, steps) for name, steps in cases]


def table_cases() -> list[Case]:
    """All of them, the long ones first."""
    return [*_features(), *_sources(), *_classify(), *_continued(), *_shards(), *_stores()]


def _features() -> list[Case]:
    photos, kinds = f"features in/photos {SMALL}", f"features in/kinds {SMALL}"
    return _cases(
        (
            "features-parquet",
            (
                Run(f"{photos} -o x.parquet"),
                Run("verify x.parquet in/photos"),
                Run("verify x.parquet in/photos --json"),
                Run("verify x.parquet"),
                Run("verify x.parquet in/photos in/kinds --report findings.jsonl"),
                Run("verify x.parquet in/photos --limit 3"),
                Run(f"{photos} -o x.parquet"),
                Run(f"{photos} --normalize -o x.parquet"),
                Run(f"{photos} --normalize --overwrite -o x.parquet"),
            ),
        ),
        (
            "features-kinds",
            (
                Run(f"{kinds} --dtype float16 --normalize --crop-pct 0.5 --max-pixels 20000 -o x.parquet"),
                Run(f"{kinds} --resize squash --interpolation nearest -o squash.npy"),
                Run(f"{kinds} --resize pad --interpolation lanczos --jpeg-shrink off -o pad.npy"),
            ),
        ),
        (
            "features-layers",
            (
                Run(f"{photos} --pooling none --limit 2 -o map.parquet"),
                Run(f"{photos} --layer block4_sepconv2_bn -o layer.parquet"),
                Run(f"{photos} --precision bfloat16 -o half.npy"),
            ),
        ),
        (
            "features-streams",
            (
                Run(f"-q {photos} --limit 3 -o -"),
                Run(f"{photos} --limit 3 -v --log-file log.txt", out="terminal"),
                Run(f"{photos}", out="closed"),
                Run(f"{photos}", out="full"),
            ),
        ),
        (
            "environment",
            (
                Run(
                    f"features in/photos {RANDOM}",
                    env={
                        "XCEPTION_FEATURES_POOLING": "max",
                        "XCEPTION_FEATURES_IMAGE_SIZE": "71",
                        "XCEPTION_FEATURES_LIMIT": "2",
                        "XCEPTION_FEATURES_OUTPUT": "x.csv",
                        "XCEPTION_FEATURES_BATCH_SIZE": "2",
                        "XCEPTION_FEATURES_DEVICE": "cpu",
                        "XCEPTION_FEATURES_NORMALIZE": "1",
                    },
                ),
            ),
        ),
    )


def _sources() -> list[Case]:
    return _cases(
        (
            "hostile",
            (
                Run(f"features in/hostile {SMALL} -o x.npy --errors-out errors.null"),
                Run("verify x.npy in/hostile"),
                Run("verify x.npy in/hostile in/nothing --exclude '*.png' --report findings.jsonl"),
                Run(
                    f"features - -0 {SMALL} -o again.csv",
                    stdin=NULS,
                ),
                Run("verify again.csv - -0", stdin=NULS),
                Run(
                    f"features {SMALL} -o named.csv -- ",
                    more=(b"in/hostile/latin-\xe9.jpg", NEW_LINE),
                ),
            ),
        ),
        (
            "archives",
            (
                Run(f"features in/archives/plain.tar in/archives/pictures.zip {SMALL} -o x.parquet"),
                Run("verify x.parquet in/archives/plain.tar in/archives/pictures.zip"),
                Run(f"features in/archives --archives {SMALL} -o all.csv --errors-out errors.null"),
                Run("verify all.csv in/archives --archives"),
                Run("verify all.csv in/archives"),
            ),
        ),
        (
            "manifests",
            (
                Run(f"features --manifest in/tables/paths.csv {SMALL} -o x.parquet"),
                Run(f"features --manifest in/tables/paths.parquet --path-column file {SMALL} -o y.parquet"),
                Run(f"features --manifest in/tables/paths.csv {SMALL} --csv-safe -o safe.csv"),
                Run(f"features --manifest in/tables/escaped.csv --escaped-paths {SMALL} -o escaped.npy"),
                Run(f"features --manifest in/tables/clash.csv {SMALL} -o clash.csv"),
                Run("verify x.parquet --manifest in/tables/paths.csv"),
                Run("verify y.parquet --manifest in/tables/paths.csv"),
                Run("verify safe.csv --manifest in/tables/paths.csv"),
            ),
        ),
        (
            "selection",
            (
                Run(f"features 'in/photos/**/*.jpg' 'in/kinds/[a-c]*' {SMALL} -o x.csv"),
                Run("verify x.csv 'in/photos/**/*.jpg' 'in/kinds/[a-c]*'"),
                Run("verify x.csv in/photos in/kinds --include '*.jpg' --json"),
                Run("verify x.csv in/photos in/kinds --exclude 'sub/**' --exclude '*.png' --report 1.jsonl"),
                Run("verify x.csv in/photos in/kinds --include '*/deep/*' --shard 2/3 --report 2.jsonl"),
                Run("verify x.csv in/photos/.hidden.jpg in/photos/../photos/sub --limit 5 --report 3.jsonl"),
            ),
        ),
    )


def _classify() -> list[Case]:
    photos = f"classify in/photos {CLASSES}"
    return _cases(
        (
            "classify-files",
            (
                Run(f"{photos} --top 2 --labels in/five.txt -o x.csv"),
                Run("verify x.csv in/photos"),
                _edit("x.csv", "dropped"),
                Run("verify x.csv in/photos --report missing.jsonl"),
                Run("verify x.csv"),
                _edit("x.csv", "doubled"),
                Run("verify x.csv in/photos --json"),
                _edit("x.csv", "nan"),
                Run("verify x.csv in/photos"),
                Run(f"{photos} in/hostile --min-score 0.2000001 -o x.jsonl"),
                Run("verify x.jsonl in/photos in/hostile"),
            ),
        ),
        (
            "classify-features",
            (
                Run(f"{photos} in/hostile/empty.png --features-out f.npy -o x.parquet"),
                Run("verify x.parquet in/photos in/hostile/empty.png"),
                Run("verify f.npy in/photos in/hostile/empty.png"),
                Run("merge x.parquet --source in/photos --source in/hostile/empty.png -o y.jsonl"),
                Run(f"{photos} --top 1 --raw-scores --labels in/five.txt --limit 3", out="terminal"),
                Run(f"{photos} --limit 3 --format jsonl"),
                Run(f"classify in/photos --limit 2 {RANDOM} --label-type both --top 2 {MACHINE} -o -"),
            ),
        ),
    )


def _continued() -> list[Case]:
    again = f"features - {ONE} -o"
    hostile = f"features in/hostile {SMALL}"
    cases = _cases(
        (
            "killed-parquet",
            (
                held("x.parquet", meanwhile=(Run(f"{again} x.parquet", stdin=MORE),)),
                Run("verify x.parquet"),
                Run(f"{again} x.parquet --pooling max", stdin=MORE),
                Run(f"{again} x.parquet", stdin=MORE),
                Run(f"{again} undisturbed.parquet", stdin=MORE),
            ),
        ),
        (
            "killed-directory",
            (
                held("x/"),
                Run("verify x/"),
                Run(f"{again} x/", stdin=MORE),
                Run(f"{again} x/", stdin=MORE),
                Run("verify x/ -", stdin=MORE),
            ),
        ),
        (
            "killed-restarted",
            (
                held("x.npy"),
                Run(f"{again} x.npy --restart", stdin=MORE),
                held("x.csv", end=signal.SIGTERM),
            ),
        ),
        (
            "interrupted",
            (
                held("x.csv", end=signal.SIGINT),
                held("x.csv", end=None),
            ),
        ),
    )
    changed = (
        Run(f"{hostile} --part-rows 4 --max-errors 2 -o x.csv --errors-out errors.null"),
        Do("an image is mended", _mend),
        Run(f"{hostile} --part-rows 4 --retry-errors -o x.csv"),
        Run(f"{hostile} --retry-errors -o x.csv --errors-out errors.null"),
        held("y.csv"),
        Do("an image is replaced", _replace),
        Run(f"{again} y.csv", stdin=MORE),
    )
    return [*cases, Case("changed", changed, copied=True)]


def _shards() -> list[Case]:
    both = f"features in/photos in/kinds/palette.png in/hostile/empty.png {SMALL}"
    photos = f"classify in/photos {CLASSES}"
    sources = "--source in/photos --source in/kinds/palette.png --source in/hostile/empty.png"
    return _cases(
        (
            "shards",
            (
                *(Run(f"{both} --shard {n}/2 -o {n}.parquet") for n in (1, 2)),
                Run("verify 1.parquet in/photos in/kinds/palette.png in/hostile/empty.png --shard 1/2"),
                Run("verify 1.parquet in/photos --shard 2/2"),
                Run(f"merge 1.parquet 2.parquet {sources} -o x.parquet"),
                Run("merge 2.parquet 1.parquet -o joined.csv"),
                Run(f"merge 2.parquet 1.parquet {sources} -o x.npy"),
                Run(f"merge 1.parquet {sources} -o y.parquet --report missing.jsonl"),
                Run(f"merge 1.parquet 2.parquet 2.parquet {sources} -o y.parquet"),
                Run(f"merge 1.parquet 2.parquet {sources} -o x.parquet"),
                Run(f"merge 1.parquet 2.parquet {sources} --overwrite -o x.parquet"),
                Run("merge 1.parquet 2.parquet -o none/x.parquet"),
                Run(f"merge 1.parquet 2.parquet {sources} -o - --format csv"),
                Run(f"{both} -o whole.parquet"),
                Run(f"merge 1.parquet 2.parquet whole.parquet {sources} -o y.parquet --report twice.jsonl"),
                Run(f"{both} --normalize --shard 1/2 -o other.parquet"),
                Run(f"merge other.parquet 2.parquet {sources} -o y.parquet"),
            ),
        ),
        (
            "shards-text",
            (
                *(Run(f"{photos} --shard {n}/2 -o {n}.csv --features-out {n}.npy") for n in (1, 2)),
                Run("merge 1.csv 2.csv --source in/photos -o x.csv"),
                Run("merge 1.csv 2.csv --source in/photos -o x.jsonl"),
                Run("merge 1.npy 2.npy --source in/photos -o x.npy"),
                Run("verify x.csv in/photos"),
                Run("verify x.npy in/photos"),
            ),
        ),
    )


def _stores() -> list[Case]:
    bucket = "s3://photographs"
    packed = f"{bucket}/in/archives/ --archives --exclude 'broken/**'"
    some = f"'{bucket}/in/photos/**/*.jpg' {bucket}/in/archives/pictures.zip"
    return [
        Case(
            "store-files",
            (
                Run(f"features {bucket}/in/photos/ {SMALL} -o {bucket}/files/x.parquet"),
                Run(f"verify {bucket}/files/x.parquet {bucket}/in/photos/"),
                Run(f"features {some} {SMALL} -o {bucket}/files/y.csv"),
                Run(f"features {bucket}/none/ {SMALL} -o x.csv"),
                Run(f"features {bucket}/in/photos/ {SMALL} -o s3://nobodys/x.csv"),
            ),
            prefix="files/",
        ),
        Case(
            "store-directory",
            (
                Run(f"features {packed} {SMALL} -o {bucket}/directory/x/"),
                Run(f"verify {bucket}/directory/x/ {packed}"),
                Run(f"features WEB/photos/a.jpg WEB/photos/none.jpg {SMALL} -o -"),
            ),
            prefix="directory/",
        ),
    ]
