"""Machines: controllers, attachments, bandwidth groups and the snapshot tree, as functions over values."""
