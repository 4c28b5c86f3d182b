"""Drops a graph of objects that refer to each other; only the collector finds them, and it would not run by itself."""
import gc
import sys
import time


class Node:
    def __init__(self):
        self.me = self
        self.load = bytes(200)


gc.set_threshold(1 << 30)
nodes = [Node() for _ in range(120_000)]
del nodes
print("ready", flush=True)
end = time.monotonic() + 60
while time.monotonic() < end:
    time.sleep(0.01)
