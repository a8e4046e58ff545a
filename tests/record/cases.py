"""The commands of a record that compute nothing, or nearly nothing: help, errors, information."""

from __future__ import annotations

from tests.record.runner import Case, Run

COMMANDS = ("classify", "features", "finetune", "evaluate", "merge", "verify", "info")


def _many(name: str, *lines: str | Run) -> Case:
    return Case(name, tuple(Run(line) if isinstance(line, str) else line for line in lines))


def _complete(line: str) -> Run:
    """What the completion script of the checkout offers in bash behind a line, sorted."""
    words = line.split(" ")
    steps = (
        "source $PYTHONPATH/completions/xception.bash",
        "function=$(complete -p xception | sed 's/.*-F \\([^ ]*\\) .*/\\1/')",
        f"COMP_WORDS=({' '.join(map(repr, words))}) COMP_CWORD={len(words) - 1}",
        f"COMP_LINE={line!r} COMP_POINT={len(line)}",
        f"$function xception {words[-1]!r} {words[-2]!r}",
        'printf "%s\\n" "${COMPREPLY[@]}" | sort',
    )
    return Run(shell="; ".join(steps))


def quick_cases() -> list[Case]:
    """Commands that end before TensorFlow is imported, or that import it for a moment."""
    return [
        _many("help", "", "--help", "-h", "--version", *(f"{name} --help" for name in COMMANDS), "nothing --help"),
        _many(
            "completion",
            *(Run(env={"_XCEPTION_COMPLETE": f"{shell}_source"}) for shell in ("bash", "zsh", "fish")),
            *(
                _complete(f"xception {words}")
                for words in (
                    "",
                    "cla",
                    "classify -",
                    "features --po",
                    "features --pooling ",
                    "classify --format ",
                    "classify in/ph",
                    "finetune --unfreeze bl",
                    "merge --",
                    "-",
                )
            ),
        ),
        _many(
            "usage-options",
            "nothing",
            "--nothing",
            "classify --nothing",
            "classify in/photos --top 0 -o x.csv",
            "classify in/photos --top",
            "classify in/photos --batch-size x -o x.csv",
            "classify in/photos --shard 4/3 -o x.csv",
            "classify in/photos --shard 0/3 -o x.csv",
            "classify in/photos --image-size 70 -o x.csv",
            "classify in/photos --weights imagenet --classes 3 -o x.csv",
            "classify in/photos --model in/two.json --weights none -o x.csv",
            "classify in/photos --limit -1 -o x.csv",
            "classify in/photos --ray-workers 2 -o x.csv",
            "features in/photos --image-size 50 -o x.csv",
            "features in/photos --classes 3 -o x.csv",
            "finetune in/labelled",
            "finetune in/labelled -o RUN --unfreeze block99",
            "finetune in/labelled -o in/labelled/RUN",
            "finetune in/labelled -o s3://photographs/RUN",
            "evaluate in/labelled --assert-top1 2 --weights none --classes 2",
            "merge -o x.csv",
            "verify",
            Run("features in/photos -o x.csv", env={"XCEPTION_FEATURES_POOLING": "most"}),
            Run("-v -q classify in/photos --top 0 -o x.csv"),
            Run("--debug classify in/photos --top 0 -o x.csv"),
        ),
        _many(
            "usage-outputs",
            "classify in/photos --weights none -o x.docx",
            "classify in/photos --weights none -o x",
            "classify in/photos --weights none -o x.npy",
            "classify in/photos --weights none -o x/ --format csv",
            "classify in/photos --weights none -o x.parquet --csv-safe",
            "classify in/photos --weights none --restart",
            "classify in/photos --weights none --features-out f.csv",
            "classify in/photos --weights none -o x.csv --features-out x.csv",
            "classify in/photos --weights none -o x/ --features-out f.csv",
            "classify in/photos --weights none -o x.csv --features-out f.jsonl",
            "features in/photos --weights none --format npy",
            "features in/photos --weights none -o x.jsonl",
            "features in/photos --weights none -o http://127.0.0.1:9/x.csv",
            "merge in/plain.txt -o x.txt",
            "--log-file none/log.txt features in/photos --weights none -o x.csv",
        ),
        _many(
            "usage-sources",
            "features 'in/*.none' --weights none -o x.csv",
            "features -0 in/photos --weights none -o x.csv",
            "features --manifest in/none.csv --weights none -o x.csv",
            "features --manifest in/tables/without.csv --weights none -o x.csv",
            "features --manifest in/tables/paths.csv in/photos --weights none -o x.csv",
            "features --manifest in/tables/paths.csv --path-column text2 --weights none -o x.csv",
            "features --manifest in/plain.txt --weights none -o x.csv",
            "features in/photos --escaped-paths --weights none -o x.csv",
            "finetune in/none -o RUN",
            "finetune in/tables/paths.csv -o RUN --weights none",
            "evaluate in/none --weights none --classes 2",
            "merge none.csv -o x.csv",
            "verify none.csv",
        ),
        _many(
            "outputs-refused",
            "features in/photos --weights none -o none/x.csv",
            "features in/photos --weights none -o in",
            "features in/photos --weights none -o in/plain.txt/x.csv",
            "features in/photos --weights none -o in/tables/paths.csv",
            "features in/photos --weights none -o in/photos/",
            "classify in/photos --weights none -o x.csv --features-out none/f.csv",
            "finetune in/labelled --weights none -o none/RUN",
            "finetune in/labelled --weights none -o in/photos",
            "finetune in/labelled --weights none -o in/plain.txt",
            "evaluate in/labelled --weights none --classes 2 -o in/plain.txt",
        ),
        _many(
            "models-refused",
            "features in/photos --offline -o x.csv",
            "classify in/photos --model in/garbage.keras -o x.csv",
            "classify in/photos --model in/none.keras -o x.csv",
            "classify in/photos --model in/photos -o x.csv",
            "features in/photos --weights in/garbage.h5 -o x.csv",
            "classify in/photos --weights none --classes 5 --labels in/two.json -o x.csv",
            "features in/photos --weights none --image-size 71 --device gpu -o x.csv",
            "features in/photos --weights none --image-size 71 --layer nothing -o x.csv",
            "finetune in/labelled --offline -o RUN",
        ),
        _many(
            "info",
            "info --offline",
            "info --weights none --no-include-top --pooling avg --image-size 71 --layers",
            "info in/photos in/kinds --weights none --classes 7 --json",
            "info in/hostile in/archives --archives --weights none",
        ),
    ]
