"""``python -m drivebay`` is the ``drivebay`` command."""

from drivebay.cli import main

main()
