"""The engine: executes the descriptions of formats on batches of requests.

Import its modules, not the package: each brings only what it needs, so that commands start fast.
"""
