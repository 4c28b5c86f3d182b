"""A service that loads 400 MB of buffers, keeps one in 500 and drops the rest; then it goes on working.

Argument 1: threads that fill and check buffers of their own all the time (none unless told); argument 2: MiB. It goes on
until its input ends. Then it looks whether all that it kept is whole, and says so."""
import gc
import random
import sys
import threading
import time

random.seed(7)
workers = int(sys.argv[1]) if len(sys.argv) > 1 else 0
total = int(sys.argv[2] if len(sys.argv) > 2 else 400) << 20
changed = []
stop = threading.Event()


def fill(number, size):
    return bytes([number % 251]) * size


def whole(number, buffer):
    return buffer == bytes([number % 251]) * len(buffer)


def work(seed):
    choice = random.Random(seed)
    held = []
    while not stop.is_set():
        number = choice.randrange(1 << 20)
        held.append((number, fill(number, choice.randrange(600, 40000))))
        if len(held) > 40:
            number, buffer = held.pop(choice.randrange(len(held)))
            if not whole(number, buffer):
                changed.append(number)


buffers, loaded = [], 0
while loaded < total:
    buffers.append(fill(len(buffers), random.randrange(600, 2500)))
    loaded += len(buffers[-1])
kept = [(number, buffers[number]) for number in range(0, len(buffers), 500)]
del buffers
gc.collect()
for seed in range(workers):
    threading.Thread(target=work, args=(seed,), daemon=True).start()
if workers:
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    print("ready", flush=True)
    while not stop.is_set():
        time.sleep(0.01)
else:
    print("ready", flush=True)
    sys.stdin.read()
changed += [number for number, buffer in kept if not whole(number, buffer)]
print(f"changed: {changed[:5]}" if changed else "whole", flush=True)
