"""The file that marks a synthetic cohort: what it was made from, and a hash of what was made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["MANIFEST", "SYNTHETIC_TARGET_NAMES", "read_manifest", "tree_digest", "write_manifest"]

MANIFEST = "histofeat-synthetic.json"

# Not the names of the IDC classes: these are drawn shapes, and no table may suggest anything else.
SYNTHETIC_TARGET_NAMES = ("no tumour", "tumour")


def read_manifest(root: Path) -> dict[str, Any] | None:
    """Content of the manifest in a folder; None when there is none or it is no JSON object."""
    try:
        content = json.loads((root / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def write_manifest(root: Path, content: Mapping[str, Any]) -> None:
    """Write the manifest in one step, so that no reader ever sees half of it."""
    partial = root / f"{MANIFEST}.partial"
    partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    partial.replace(root / MANIFEST)


def tree_digest(files: Mapping[str, bytes]) -> str:
    """SHA-256 over names and contents, in name order."""
    total = hashlib.sha256()
    for name in sorted(files):
        total.update(f"{name}\0{hashlib.sha256(files[name]).hexdigest()}\n".encode())
    return total.hexdigest()
