"""``python -m drivebay.qemu``: prepare the tiny guest, so that later runs need no network."""

import sys

from drivebay.errors import StorageError
from drivebay.qemu.tiny_guest import TinyGuest

try:
    TinyGuest.prepare(on_status=print)
except StorageError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
