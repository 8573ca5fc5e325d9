"""Turn a raw disk into a VDI, leaving out what is zero.

python examples/import_raw.py disk.img disk.vdi
"""

import sys

import drivebay

PIECE = 1 << 20


def import_raw(source: str, target: str) -> None:
    """Make ``target`` with the content of ``source``."""
    with drivebay.open(source, format="raw") as raw:
        drivebay.create(target, size=raw.size)
        with drivebay.open(target, writable=True) as disk:
            for offset in range(0, raw.size, PIECE):
                data = raw.read(offset, min(PIECE, raw.size - offset))
                if any(data):
                    disk.write(offset, data)


if __name__ == "__main__":
    import_raw(*sys.argv[1:])
