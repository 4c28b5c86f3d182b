"""Leaks beside a function that allocates more and frees it. Run it with -X perf."""
import time

kept = []


def leak_a_block():
    kept.append(b"\x01" * (64 << 10))


# With MALLOC_MMAP_THRESHOLD_=65536 it goes back to the kernel at once.
def fill_and_free():
    block = b"\x01" * (1 << 20)
    del block


print("ready", flush=True)
while True:
    leak_a_block()
    fill_and_free()
    time.sleep(0.01)
