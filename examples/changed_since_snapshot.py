"""List what a differencing image changed: what an incremental backup would have to copy.

python examples/changed_since_snapshot.py child.vdi
"""

import sys
from collections.abc import Iterator

import drivebay


def changes(path: str) -> Iterator[drivebay.Extent]:
    """The extents that the image itself decides, data and zeros, its parents aside."""
    with drivebay.open(path) as disk:
        yield from (extent for extent in disk.extents() if extent.depth == 0)


if __name__ == "__main__":
    for extent in changes(sys.argv[1]):
        print(f"{extent.start:>16} {extent.length:>16} {extent.state.value}")
