"""Makes many small dicts and keeps one in 500: each pins the page, and mostly the arena, that it lies in."""
import sys

dicts = [{"number": number, "half": number / 2} for number in range(600_000)]
kept = dicts[::500]
del dicts
print("ready", flush=True)
sys.stdin.read()
print("whole" if all(one["half"] == one["number"] / 2 for one in kept) else "changed", flush=True)
