// Grows in ways that `profile` has to tell apart. One mode: `leak` (beside a function that allocates more and frees it),
// or `reserve` (400 GB of address space that nobody touches, beside a vector without bound).
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace {

std::vector<char *> kept;

__attribute__((noinline)) void leak_a_block() {
    char *block = new char[64 << 10];
    memset(block, 1, 64 << 10);
    kept.push_back(block);
}

// Larger than glibc's largest mmap threshold, so that it goes back to the kernel at once.
__attribute__((noinline)) void fill_and_free() {
    char *block = static_cast<char *>(malloc(64 << 20));
    memset(block, 1, 1 << 20);
    asm volatile("" ::"r"(block) : "memory");
    free(block);
}

__attribute__((noinline)) void reserve_only() {
    void *range = mmap(nullptr, 400UL << 30, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (range == MAP_FAILED) perror("mmap");
}

__attribute__((noinline)) void remember_without_bound(std::vector<long> &all) {
    for (long i = 0; i < 20000; i++) all.push_back(i);
}

}  // namespace

int main(int argc, char **argv) {
    bool reserve = argc > 1 && strcmp(argv[1], "reserve") == 0;
    std::vector<long> all;
    if (reserve) reserve_only();
    puts("ready");
    fflush(stdout);
    for (;;) {
        if (reserve) {
            remember_without_bound(all);
        } else {
            leak_a_block();
            fill_and_free();
        }
        usleep(10000);
    }
}
