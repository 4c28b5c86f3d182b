/* The lives that programs lead, for an agent to be loaded into; argument 1 names one. Each says `ready` when it can be
   asked, and something about itself at its end. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void ready(void) { puts("ready"); fflush(stdout); }

/* Waits in read(), outside the allocator. */
static void rest(void) { char byte; while (read(0, &byte, 1) > 0) {} }

static int input_ended(void)
{
    char byte;
    fcntl(0, F_SETFL, O_NONBLOCK);
    return read(0, &byte, 1) == 0;
}

static void churn(void)
{
    static void *held[256];
    for (int at = 0; at < 100000; at++) {
        unsigned slot = (unsigned)rand() % 256;
        free(held[slot]);
        held[slot] = malloc(16 + (size_t)rand() % 20000);
    }
}

static char *alone(void)
{
    char *flag = dlsym(RTLD_DEFAULT, "__libc_single_threaded");
    return flag ? (*flag ? "alone" : "threads") : "unknown";
}

static void in_handler(int signal) { (void)signal; ready(); rest(); }
static void *leave(void *nothing) { (void)nothing; usleep(50000); return NULL; }

static int waited(pid_t child)
{
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int main(int count, char **arguments)
{
    const char *life = count > 1 ? arguments[1] : "";
    pthread_t thread;
    if (!strcmp(life, "rests")) {
        ready();
        rest();
        puts(alone());
    } else if (!strcmp(life, "works")) {
        /* One thread, always in or near the allocator. */
        ready();
        while (!input_ended()) churn();
        puts(alone());
    } else if (!strcmp(life, "handler")) {
        signal(SIGUSR1, in_handler);
        raise(SIGUSR1);
        puts("over");
    } else if (!strcmp(life, "fork")) {
        pid_t child = fork();
        if (!child) { printf("child %d\n", getpid()); ready(); rest(); return 7; }
        printf("%d\n", waited(child));
    } else if (!strcmp(life, "fork-of-threads")) {
        pthread_create(&thread, NULL, leave, NULL);
        pid_t child = fork();
        if (!child) { printf("child %d\n", getpid()); ready(); rest(); return 7; }
        pthread_join(thread, NULL);
        printf("%d\n", waited(child));
    } else if (!strcmp(life, "exec")) {
        execl("/proc/self/exe", "lives", "rests", NULL);
    } else if (!strcmp(life, "identity")) {
        /* root gives up what it is; no thread may stay what it was. */
        if (setgid(65534) || setuid(65534)) return 3;
        printf("pid %d\n", getpid());
        ready();
        rest();
    } else if (!strcmp(life, "namespace")) {
        /* The kernel refuses this to processes with threads. */
        printf("%s\n", unshare(CLONE_NEWUSER) ? strerror(errno) : "entered");
        ready();
        rest();
    } else if (!strcmp(life, "last-thread")) {
        /* The process ends with its last thread, by exit(0). */
        pthread_create(&thread, NULL, leave, NULL);
        pthread_detach(thread);
        pthread_exit(NULL);
    } else if (!strcmp(life, "descriptors")) {
        int first = open("/dev/null", O_RDONLY);
        printf("first %d\n", first);
        for (int fd = 3; fd < 1024; fd++) close(fd);
        ready();
        rest();
    } else if (!strcmp(life, "allocate") || !strcmp(life, "print")) {
        /* For a stopwatch: the allocator, or stdio, and next to nothing else. */
        struct timespec from, to;
        FILE *out = fopen("/dev/null", "w");
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &from);
        for (int turn = 0; turn < 30; turn++)
            if (*life == 'a') churn();
            else for (int at = 0; at < 2000000; at++) putc(at, out);
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &to);
        printf("%lld\n", (to.tv_sec - from.tv_sec) * 1000000000LL + to.tv_nsec - from.tv_nsec);
    } else if (!strcmp(life, "empty")) {
        return 0;
    } else {
        return 2;
    }
    return 0;
}
