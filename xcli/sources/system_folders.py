"""Folders that a system makes beside the user's own: thumbnails, recycle bins, snapshots, caches, versions.

Their images are copies of images of the user, or images that he has deleted. Names that begin with a dot (`.git`,
`.Trashes`, `.ipynb_checkpoints`) are hidden anyway. The list holds only names that nobody gives to a folder of his own.
"""

from __future__ import annotations

import re

SYSTEM_FOLDER = "system folder"
"""The reason under which a listing counts them."""

SYSTEM_FOLDERS = {
    "Synology": ("@eaDir", "#recycle", "#snapshot", "@SynoResource", "@sharesnap", "@tmp"),
    "QNAP": ("@Recycle", "@Recently-Snapshot", "@Transcode"),
    "other storage": ("lost+found", "~snapshot", "#Recycle Bin"),
    "Windows": ("$RECYCLE.BIN", "System Volume Information", "$Extend"),
    "macOS": ("__MACOSX", "Network Trash Folder", "Temporary Items", "TheVolumeSettingsFolder"),
    "Python": ("__pycache__",),
}
"""By the system that makes them; upper and lower case are the same."""

EXACT_FOLDERS = {"Windows": ("RECYCLER",), "versions": ("CVS",)}
"""Names that count only in this case, because other ones may be classes: `recycler`."""

_NAMES = frozenset(name.lower().encode() for names in SYSTEM_FOLDERS.values() for name in names)
_EXACT = frozenset(name.encode() for names in EXACT_FOLDERS.values() for name in names)
_CHECKED_DISK = re.compile(rb"found\.[0-9]{3}", re.IGNORECASE)  # what chkdsk of Windows makes


def is_system_folder(name: bytes) -> bool:
    """Says whether a directory with this name, without those above, belongs to a system."""
    return name.lower() in _NAMES or name in _EXACT or _CHECKED_DISK.fullmatch(name) is not None
