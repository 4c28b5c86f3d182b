/* Fills memory with small buffers, keeps one in 500 and frees the rest; says `ready` and waits for its input to end. Then
   looks whether all that it kept is whole. Argument 1: MiB; argument 2: threads that allocate and check meanwhile. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static volatile int stop, changed;

static unsigned next(unsigned *seed) { return *seed = *seed * 1664525u + 1013904223u; }

static char *fill(unsigned number, size_t size)
{
    char *buffer = malloc(size);
    if (!buffer) abort();
    memset(buffer, (char)number, size);
    return buffer;
}

static int whole(const char *buffer, unsigned number, size_t size)
{
    for (size_t at = 0; at < size; at++)
        if (buffer[at] != (char)number) return 0;
    return 1;
}

static void *work(void *argument)
{
    unsigned seed = (unsigned)(size_t)argument, numbers[64] = {0};
    char *held[64] = {0};
    size_t sizes[64] = {0};
    while (!stop) {
        unsigned at = next(&seed) >> 8 & 63;
        if (held[at]) {
            if (!whole(held[at], numbers[at], sizes[at])) changed = 1;
            free(held[at]);
        }
        numbers[at] = seed;
        sizes[at] = 16 + (next(&seed) >> 8) % 30000;
        held[at] = fill(numbers[at], sizes[at]);
    }
    return NULL;
}

int main(int count, char **arguments)
{
    size_t total = (count > 1 ? atol(arguments[1]) : 200) << 20, sum = 0, most = total / 600 + 1, number = 0;
    int threads = count > 2 ? atoi(arguments[2]) : 0;
    unsigned seed = 7;
    char **buffers = malloc(most * sizeof *buffers);
    size_t *sizes = malloc(most * sizeof *sizes);
    pthread_t thread[64];
    for (; sum < total && number < most; number++) {
        sizes[number] = 600 + (next(&seed) >> 8) % 1900;
        buffers[number] = fill((unsigned)number, sizes[number]);
        sum += sizes[number];
    }
    for (size_t at = 0; at < number; at++)
        if (at % 500) free(buffers[at]);
    for (int at = 0; at < threads && at < 64; at++)
        pthread_create(&thread[at], NULL, work, (void *)(size_t)(at + 1));
    puts("ready");
    fflush(stdout);
    char byte;
    while (read(0, &byte, 1) > 0) {}
    stop = 1;
    for (int at = 0; at < threads && at < 64; at++) pthread_join(thread[at], NULL);
    for (size_t at = 0; at < number; at += 500)
        if (!whole(buffers[at], (unsigned)at, sizes[at])) changed = 1;
    puts(changed ? "changed" : "whole");
    return changed;
}
