"""Fuzzing: damaged images of every format, opened, checked, read and written through the whole product.

An attempt must end with an answer or a StorageError, within bounds of time and memory, and must never
show a byte that isn't the image's. ``python -m fuzz --help``; how it works is in docs/internals/fuzzing.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

sys.path.insert(0, str(ROOT / "tests"))  # the images that the tests make are the seeds
