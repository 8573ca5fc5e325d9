"""The benchmark: drivebay beside qemu-nbd, qemu-storage-daemon and nbdkit, in interleaved rounds.

Run it as ``python -m bench`` from the root of the repository; BENCHMARKS.md tells how to read it.
"""
