"""Python programs whose memory behaves in one of several known ways, and the client that keeps Redis busy.

It prints `onset SECONDS` (Unix time) when a leak begins.

  traffic.py list-leak RATE [DELAY_S]     a list that only grows: RATE bytes a second of small strings
  traffic.py cycles RATE                  objects in cycles, freed by the collector alone: a saw-tooth,
                                          seen from outside with MALLOC_MMAP_THRESHOLD_=65536 in the environment
  traffic.py spike BYTES PERIOD_S         reads a large document a period and drops it: what malloc keeps stays
  traffic.py redis PORT KEYS BYTES RATE   sets random keys of KEYS with BYTES each, RATE a second, for ever
"""

import gc
import sys
import time
from collections import deque
from random import Random


def paced(rate, job):
    """Calls job() `rate` times a second by the clock, for ever."""
    start, done = time.monotonic(), 0
    while True:
        due = int((time.monotonic() - start) * rate)
        while done < due:
            job()
            done += 1
        time.sleep(0.05)


def onset():
    print(f"onset {time.time():.3f}", flush=True)


def list_leak(rate, delay=0):
    time.sleep(float(delay))
    kept = []
    onset()
    # A string of 950 characters is 999 bytes with its header, and eight in the list.
    paced(float(rate) / 1007, lambda: kept.append(f"{len(kept):<950}"))


def cycles(rate):
    # Fewer, larger objects than the collector's defaults are made for; what expires is in its oldest generation by then.
    gc.set_threshold(50, 5, 5)
    sessions = deque(maxlen=60)

    def request():
        context = {"body": bytearray(128 << 10)}
        context["self"] = context
        sessions.append(context)

    paced(float(rate) / (128 << 10), request)


def spike(size, period):
    survivors = []
    time.sleep(10)
    while True:
        print(f"note spike at {time.time():.3f}", flush=True)
        # Rows of a document, four kilobytes each; one in 500 outlives the rest.
        rows = [{"id": i, "text": f"{i:<3700}"} for i in range(int(size) // 4000)]
        survivors[:] = rows[::500] + rows[-1:]
        del rows
        print(f"note freed at {time.time():.3f}", flush=True)
        end = time.monotonic() + float(period)
        while time.monotonic() < end:
            str(list(range(1000)))
            time.sleep(0.5)


def redis(port, keys, size, rate):
    # The socket module is part of the full library only; the C module below it is always there.
    import _socket

    connection = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM, 0)
    connection.connect(("127.0.0.1", int(port)))
    random, value = Random(1), b"x" * int(size)

    def command(*words):
        return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)

    def batch():
        lines = [
            command(b"SET", b"key:%d" % random.randrange(int(keys)), value) if i % 4 else
            command(b"GET", b"key:%d" % random.randrange(int(keys)))
            for i in range(64)
        ]
        data = b"".join(lines)
        while data:
            data = data[connection.send(data):]
        answers = 0
        while answers < 64:
            # A SET answers `+OK`, a GET `$LENGTH` and the value or `$-1`: each has one of the two signs.
            received = connection.recv(1 << 16)
            answers += received.count(b"+") + received.count(b"$")

    paced(float(rate) / 64, batch)


if __name__ == "__main__":
    {"list-leak": list_leak, "cycles": cycles, "spike": spike, "redis": redis}[sys.argv[1]](*sys.argv[2:])
