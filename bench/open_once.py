"""Open an image and read one page, in this fresh process: ``python -m bench.open_once IMAGE OFFSET``.

Prints the seconds from before `drivebay.open` to after the first read (imports are done by then), and
the first word of the page, as JSON.
"""

from __future__ import annotations

import json
import sys
import time

import drivebay
from bench.wire import PAGE


def main() -> None:
    """Measure once."""
    path, offset = sys.argv[1], int(sys.argv[2])
    open_disk = drivebay.open  # imports what it needs
    begun = time.perf_counter()
    with open_disk(path) as disk:
        page = disk.read(offset, PAGE)
        seconds = time.perf_counter() - begun
    print(json.dumps({"seconds": seconds, "word": int.from_bytes(page[:8])}))


if __name__ == "__main__":
    main()
