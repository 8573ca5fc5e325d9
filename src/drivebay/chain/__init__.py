"""Images that build on each other: found, checked, locked and opened; and new ones made."""

from drivebay.chain.create import create_image, format_for
from drivebay.chain.publish import write_image
from drivebay.chain.resolve import Chain, close_layers, open_chain, open_image, open_layer

__all__ = [
    "Chain",
    "close_layers",
    "create_image",
    "format_for",
    "open_chain",
    "open_image",
    "open_layer",
    "write_image",
]
