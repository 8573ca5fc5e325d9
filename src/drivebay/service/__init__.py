"""The one application interface: what the command line and the Python package are skins of.

Import its modules, not the package: each brings only what it needs, so that commands start fast.
"""
