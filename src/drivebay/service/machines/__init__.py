"""Machines as the command line and other programs change them: each function is one transaction."""
