"""The output that `-o` names, parsed once: a stream, a file, or a directory of parts; and the run that wrote it.

Stream      standard output, a descriptor, an existing FIFO or device: written as rows come, nothing is kept
File        a file or an object of a store, which appears when it is complete
Directory   a directory or a prefix of a store, which gets Parquet parts as they are finished
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from xcli.core.errors import CheckError, OutputExistsError, UsageError
from xcli.core.text import one_line
from xcli.inference.options import BATCH_SIZES, Pinned
from xcli.storage.directories import open_folder
from xcli.storage.object_store import open_writable_store
from xcli.storage.staging import complete
from xcli.storage.streams import is_direct
from xcli.storage.urls import is_url
from xcli.tables.formats import format_from_name, format_of_extension
from xcli.tables.provenance import CALIBRATION, DATASET_META, META_SUFFIX, SUCCESS, read_meta

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class EarlierRun(NamedTuple):
    """What `.meta.json` says of the run that made an output, or was killed just before the output appeared.

    Attributes:
        fingerprint: digest of everything that the rows depend on.
        choices: what it has chosen.
    """

    fingerprint: str
    choices: Pinned


def pinned_choices(journal: Mapping[str, Any] | None, earlier: EarlierRun | None) -> Pinned:
    """Returns what an unfinished or finished run of an output has chosen, because values depend on it."""
    if journal is not None:
        provenance = journal.get("provenance", {})
        return Pinned(provenance.get("batch_size"), provenance.get(CALIBRATION))
    return Pinned() if earlier is None else earlier.choices


@dataclass(frozen=True, slots=True)
class Stream:
    """An output that is written as rows come.

    Attributes:
        name: as the user gave it; None is standard output.
    """

    name: str | None

    def format(self, allowed: Sequence[str], default: str) -> str:
        """Returns the format for the name; see `format_from_name`."""
        return format_from_name(self.name, allowed, default)


@dataclass(frozen=True, slots=True)
class KeptTarget(ABC):
    """An output that stays, with a `.meta.json` that records how it was computed.

    Attributes:
        name: as the user gave it.

    Raises:
        OutputError: from every method, if the object store cannot be asked.
    """

    name: str

    @property
    def remote(self) -> bool:
        """Whether it is in an object store."""
        return is_url(self.name)

    @property
    @abstractmethod
    def meta_name(self) -> str:
        """Name of its `.meta.json`."""

    @abstractmethod
    def is_finished(self) -> bool:
        """Returns whether the output is there and finished."""

    def format(self, allowed: Sequence[str], default: str) -> str:
        """Returns the format for the name; see `format_from_name`. A directory is always Parquet."""
        return format_from_name(self.name, allowed, default)

    def recorded_run(self) -> EarlierRun | None:
        """Returns the run that `.meta.json` records; None if there is no such file, or it is damaged."""
        try:
            meta = read_meta(self.meta_name)
        except CheckError:
            return None
        if meta is None or not isinstance(meta.get("fingerprint"), str):
            return None
        size = meta.get("batch_size")
        known = size if isinstance(size, int) and size in BATCH_SIZES else None
        return EarlierRun(meta["fingerprint"], Pinned(known, meta.get(CALIBRATION)))

    def finished_run(self) -> EarlierRun | None:
        """Returns the run that made the finished output; None if there is no finished output, or it has no record."""
        return self.recorded_run() if self.is_finished() else None

    def holds(self, fingerprint: str) -> bool:
        """Returns whether `.meta.json` records a run with this fingerprint."""
        run = self.recorded_run()
        return run is not None and run.fingerprint == fingerprint


@dataclass(frozen=True, slots=True)
class File(KeptTarget):
    """A file, or an object of a store."""

    @property
    def meta_name(self) -> str:
        return self.name + META_SUFFIX

    @property
    def real_name(self) -> str:
        """A text that is the same for all names of this output: its real path, or its URL."""
        return self.name if self.remote else os.path.realpath(self.name)

    def is_finished(self) -> bool:
        return self.exists() if self.remote else os.path.isfile(self.name)

    def complete(self) -> None:
        """Completes what an earlier process was killed at, while the file got its name.

        Raises:
            OutputError: that is not possible now, or another process writes the file.
        """
        if not self.remote:
            complete(self.name)

    def exists(self) -> bool:
        """Returns whether anything has this name: a file, a broken link, an object.

        Raises:
            UsageError: it is a URL where nothing can be written.
        """
        if self.remote:
            return open_writable_store(self.name).exists()
        return os.path.lexists(self.name)


@dataclass(frozen=True, slots=True)
class Directory(KeptTarget):
    """A directory, or a prefix of a store, that gets Parquet parts."""

    @property
    def meta_name(self) -> str:
        return os.path.join(self.name, DATASET_META)

    def format(self, allowed: Sequence[str], default: str) -> str:
        return "parquet"

    def is_finished(self) -> bool:
        if self.remote:
            return open_folder(self.name).read(SUCCESS) is not None
        return os.path.isfile(os.path.join(self.name, SUCCESS))


Target: TypeAlias = Stream | File | Directory


def parse_target(name: str | None) -> Target:
    """Returns the kind of output that a name means.

    A directory is a name that ends in a slash, or an existing directory. One request asks an object store for that.
    An existing directory (or a link to one) whose name is that of a file needs the slash.

    Args:
        name: the value of `-o`; None and `-` are standard output.

    Raises:
        UsageError: the name is empty, or a URL where nothing can be written, or has an extension and is a directory.
        OutputError: the object store cannot be asked.
    """
    if name == "":
        raise UsageError("the name of the output is empty; give a file, or - for standard output")
    if name is None or is_direct(name):
        return Stream(name)
    if name.endswith("/"):
        return Directory(name)
    if is_url(name):
        return Directory(name) if open_writable_store(name).has_below() else File(name)
    if not os.path.isdir(name):
        return File(name)
    is_link = os.path.islink(name) and os.path.splitext(name)[1] != ""
    if is_link or format_of_extension(name) not in (None, "parquet"):
        what = f"a link to the directory {one_line(os.path.realpath(name))}" if is_link else "a directory"
        raise UsageError(f"{name!r} is {what}; add a slash to write Parquet parts there, or give a file")
    return Directory(name)


def parse_file(name: str, option: str) -> File:
    """Parses the value of an option that takes the name of a file.

    Raises:
        UsageError: the name is that of a stream or a directory.
        OutputError: the object store cannot be asked.
    """
    target = parse_target(name)
    if not isinstance(target, File):
        raise UsageError(f"{option} takes the name of a file; received {name!r}")
    return target


def other_settings(target: KeptTarget) -> OutputExistsError:
    """Returns the error for an output that a run with other settings or sources has finished."""
    return OutputExistsError(
        f"{one_line(target.name)} exists, from a run with other settings or sources; pass --overwrite to replace it"
    )
