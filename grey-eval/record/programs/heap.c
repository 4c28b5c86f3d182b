/* A C program whose memory behaves in one of several known ways, with the real malloc of its C library.
 *
 * It prints `onset SECONDS` (Unix time) when a leak begins and `note TEXT` for what else is worth knowing, and is paced
 * by the clock: a rate stays what it is on a slow machine, as long as the machine keeps up at all.
 *
 *   heap leak RATE [DELAY_S [PIECE]]         mallocs and forgets RATE bytes a second in pieces
 *   heap mmap-leak RATE [DELAY_S]            maps 64 KiB pieces and never unmaps them
 *   heap bursts RATE PERIOD_S                leaks the same on average, in bursts a period apart
 *   heap handler RATE WORK                   serves requests: WORK bytes come and go every few seconds, RATE leaks
 *   heap vector RATE RESERVE [DELAY_S]       an unbounded vector beside a reservation that nobody touches
 *   heap reserve BYTES                       the reservation alone, and an ordinary small program
 *   heap stacks BYTES_PER_THREAD PERIOD_S    starts a thread a period that never ends and has used that much of its stack
 *   heap plateau BYTES PERIOD_S              spikes of small objects, freed except a few that pin the heap's end
 *   heap batch BYTES PERIOD_S                a job a period: takes so much, works, gives it back
 *   heap cache BYTES RATE                    a cache of its own with a cap: random keys, what is not there is fetched
 *   heap fill BYTES RATE                     the same filled in order and evenly, then replaced in order
 *   heap idle BYTES                          takes so much at its start and then only ticks
 */
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static double now(clockid_t clock)
{
	struct timespec t;
	clock_gettime(clock, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void pause_for(double seconds)
{
	struct timespec t = { (time_t)seconds, (long)((seconds - (time_t)seconds) * 1e9) };
	while (nanosleep(&t, &t) == -1 && errno == EINTR)
		;
}

static void onset(void)
{
	printf("onset %.3f\n", now(CLOCK_REALTIME));
	fflush(stdout);
}

static void refused(const char *what)
{
	printf("note %s refused: %s\n", what, strerror(errno));
	exit(3);
}

/* Every byte is written: the program uses what it takes. */
static void *take(size_t bytes)
{
	void *piece = malloc(bytes);
	if (!piece)
		refused("malloc");
	memset(piece, 0x5a, bytes);
	return piece;
}

static void *map(size_t bytes, int flags)
{
	void *start = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
	if (start == MAP_FAILED)
		refused("mmap");
	return start;
}

/* How many bytes are due at `rate` since `start`, beyond `done`. */
static size_t due(double start, double rate, size_t done)
{
	double wanted = (now(CLOCK_MONOTONIC) - start) * rate;
	return wanted > done ? (size_t)wanted - done : 0;
}

static void leak(double rate, double delay, size_t piece)
{
	pause_for(delay);
	onset();
	double start = now(CLOCK_MONOTONIC);
	for (size_t done = 0;;) {
		for (size_t rest = due(start, rate, done); rest >= piece; rest -= piece, done += piece)
			take(piece);
		pause_for(0.05);
	}
}

static void mmap_leak(double rate, double delay)
{
	const size_t piece = 64 << 10;
	pause_for(delay);
	onset();
	double start = now(CLOCK_MONOTONIC);
	for (size_t done = 0;;) {
		for (size_t rest = due(start, rate, done); rest >= piece; rest -= piece, done += piece)
			memset(map(piece, 0), 1, piece);
		pause_for(0.05);
	}
}

static void bursts(double rate, double period)
{
	onset();
	for (;;) {
		for (size_t rest = rate * period; rest >= 1024; rest -= 1024)
			take(1024);
		pause_for(period);
	}
}

/* Requests take memory for a while and give it back; a little of each is forgotten. */
static void handler(double rate, size_t work)
{
	enum { PIECES = 512 };
	void *request[PIECES];
	onset();
	double start = now(CLOCK_MONOTONIC);
	for (size_t done = 0;;) {
		for (int i = 0; i < PIECES; i++) {
			request[i] = take(work / PIECES);
			if (i % 64 == 0)
				pause_for(0.2);
		}
		for (int i = 0; i < PIECES; i++)
			free(request[i]);
		for (size_t rest = due(start, rate, done); rest >= 512; rest -= 512, done += 512)
			take(512);
		pause_for(0.5);
	}
}

static void reserve(size_t bytes)
{
	void *start = map(bytes, MAP_NORESERVE);
	printf("note reserved %zu bytes at %p\n", bytes, start);
	fflush(stdout);
	for (;; pause_for(1))
		free(take(256 << 10));
}

__attribute__((noinline)) static void vector(double rate, size_t bytes, double delay)
{
	map(bytes, MAP_NORESERVE);
	pause_for(delay);
	onset();
	size_t capacity = 1 << 20, length = 0;
	char *items = malloc(capacity);
	double start = now(CLOCK_MONOTONIC);
	for (;;) {
		for (size_t rest = due(start, rate, length); rest > 0;) {
			if (length == capacity && !(items = realloc(items, capacity *= 2)))
				refused("realloc");
			size_t next = rest < capacity - length ? rest : capacity - length;
			memset(items + length, 1, next);
			length += next;
			rest -= next;
		}
		pause_for(0.05);
	}
}

static void *stack(void *bytes)
{
	size_t size = (uintptr_t)bytes;
	char used[size];
	memset(used, 1, size);
	/* Keeps the array from being optimized away. */
	__asm__ volatile("" : : "r"(used) : "memory");
	for (;;)
		pause();
	return NULL;
}

static void stacks(size_t bytes, double period)
{
	pause_for(10);
	onset();
	for (;; pause_for(period)) {
		pthread_t thread;
		if ((errno = pthread_create(&thread, NULL, stack, (void *)bytes)))
			refused("pthread_create");
	}
}

/* Objects of a few hundred bytes; every 2000th stays, so that the heap's end cannot be given back. */
static void plateau(size_t bytes, double period)
{
	const size_t piece = 400;
	size_t count = bytes / piece;
	void **objects = take(count * sizeof *objects);
	pause_for(10);
	for (;;) {
		printf("note spike at %.3f\n", now(CLOCK_REALTIME));
		for (size_t i = 0; i < count; i++)
			objects[i] = take(piece - i % 7 * 16);
		/* The last one is at the end of the heap: with it alive, malloc has nothing to trim. */
		void *last = objects[count - 1];
		for (size_t i = 0; i + 1 < count; i++)
			free(objects[i]);
		printf("note freed at %.3f\n", now(CLOCK_REALTIME));
		fflush(stdout);
		double end = now(CLOCK_MONOTONIC) + period;
		while (now(CLOCK_MONOTONIC) < end) {
			free(take(4096));
			pause_for(0.5);
		}
		free(last);
	}
}

static void batch(size_t bytes, double period)
{
	const size_t piece = 1 << 20;
	size_t count = bytes / piece;
	void **pieces = take(count * sizeof *pieces);
	for (;;) {
		for (size_t i = 0; i < count; i++) {
			pieces[i] = take(piece);
			pause_for(period / 4 / count);
		}
		pause_for(period / 4);
		for (size_t i = 0; i < count; i++)
			free(pieces[i]);
		pause_for(period / 2);
	}
}

/* Keys of one and a half times what fits; a miss takes a new entry, beyond the cap in place of a random one. */
static void cache(size_t bytes, double rate)
{
	const size_t piece = 4096;
	size_t cap = bytes / piece, keys = cap + cap / 2, held = 0, done = 0;
	void **by_key = calloc(keys, sizeof *by_key);
	size_t *order = calloc(cap, sizeof *order);
	double start = now(CLOCK_MONOTONIC);
	for (;;) {
		for (size_t rest = due(start, rate, done); rest >= piece; rest -= piece, done += piece) {
			size_t key = rand() % keys, place = held;
			if (by_key[key])
				continue;
			if (held == cap) {
				place = rand() % cap;
				free(by_key[order[place]]);
				by_key[order[place]] = NULL;
			} else {
				held++;
			}
			order[place] = key;
			by_key[key] = take(piece);
		}
		pause_for(0.05);
	}
}

static void fill(size_t bytes, double rate)
{
	const size_t piece = 4096;
	size_t count = bytes / piece, done = 0;
	void **slots = calloc(count, sizeof *slots);
	double start = now(CLOCK_MONOTONIC);
	for (;;) {
		for (size_t rest = due(start, rate, done); rest >= piece; rest -= piece, done += piece) {
			void **slot = &slots[done / piece % count];
			free(*slot);
			*slot = take(piece);
		}
		pause_for(0.05);
	}
}

static void idle(size_t bytes)
{
	char *kept = take(bytes);
	for (;; pause_for(1)) {
		kept[rand() % bytes]++;
		free(take(64 << 10));
	}
}

int main(int argc, char **argv)
{
	const char *mode = argc > 1 ? argv[1] : "";
	double a = argc > 2 ? atof(argv[2]) : 0;
	double b = argc > 3 ? atof(argv[3]) : 0;
	double c = argc > 4 ? atof(argv[4]) : 0;
	if (!strcmp(mode, "leak"))
		leak(a, b, c ? c : 1024);
	else if (!strcmp(mode, "mmap-leak"))
		mmap_leak(a, b);
	else if (!strcmp(mode, "bursts"))
		bursts(a, b);
	else if (!strcmp(mode, "handler"))
		handler(a, b);
	else if (!strcmp(mode, "vector"))
		vector(a, b, c);
	else if (!strcmp(mode, "reserve"))
		reserve(a);
	else if (!strcmp(mode, "stacks"))
		stacks(a, b);
	else if (!strcmp(mode, "plateau"))
		plateau(a, b);
	else if (!strcmp(mode, "batch"))
		batch(a, b);
	else if (!strcmp(mode, "cache"))
		cache(a, b);
	else if (!strcmp(mode, "fill"))
		fill(a, b);
	else if (!strcmp(mode, "idle"))
		idle(a);
	fprintf(stderr, "usage: heap MODE SIZE [...]; the modes are at the top of heap.c\n");
	return 2;
}
