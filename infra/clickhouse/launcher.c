/*
 * Runs ClickHouse from libchdb as a server, in the foreground.
 *
 *     launcher LIBRARY CONFIG-FILE [OPTION...]
 *
 * libchdb is ClickHouse as a library. Its entry chdb_query_cmdline(argc, argv) behaves like
 * `clickhouse local`, which serves HTTP and the native protocol once it has executed SYSTEM START LISTEN,
 * but only for as long as it has statements to read. So it is given two "files" of statements:
 *
 *   1. a pipe that holds the two SYSTEM START LISTEN statements and is already closed;
 *   2. a pipe that stays open and empty. Reading it blocks until this program is told to stop.
 *
 * SIGTERM or SIGINT closes the second pipe: ClickHouse then sees the end of its input and shuts down in
 * order. A second signal ends the process at once. All options after CONFIG-FILE go to ClickHouse unchanged.
 *
 * Exit status: 0 stopped by a signal; 1 ClickHouse reported an error or ended by itself; 2 wrong usage or
 * the library cannot be used.
 */

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char LISTEN_STATEMENTS[] = "SYSTEM START LISTEN HTTP; SYSTEM START LISTEN TCP;";

/* From chdb.h: a result is opaque; its error is NULL when all went well, and belongs to the result. */
typedef struct chdb_result_ chdb_result;
typedef chdb_result *(*query_cmdline_function)(int argc, char **argv);
typedef const char *(*result_error_function)(chdb_result *result);
typedef void (*destroy_result_function)(chdb_result *result);

struct stop_watch {
    sigset_t signals;
    int open_end; /* the writing end of the second pipe; closing it stops ClickHouse */
};

static volatile sig_atomic_t stop_requested = 0;

static void *wait_for_stop(void *argument)
{
    struct stop_watch *watch = argument;
    int signal_number;

    sigwait(&watch->signals, &signal_number);
    stop_requested = 1;
    fprintf(stderr, "launcher: %s, shutting down\n", strsignal(signal_number));
    close(watch->open_end);

    sigwait(&watch->signals, &signal_number);
    fprintf(stderr, "launcher: %s again, ending at once\n", strsignal(signal_number));
    _exit(1);
}

/* POSIX lets a function's address pass through void *, ISO C does not: hence the copy. */
static void symbol(void *library, const char *name, void *function)
{
    void *address = dlsym(library, name);
    if (address == NULL) {
        fprintf(stderr, "launcher: the library has no function %s; it is not the libchdb this program was written for: %s\n",
                name, dlerror());
        exit(2);
    }
    memcpy(function, &address, sizeof address);
}

static void open_pipe(int ends[2])
{
    if (pipe(ends) != 0) {
        fprintf(stderr, "launcher: cannot open a pipe: %s\n", strerror(errno));
        exit(2);
    }
}

static char *option(const char *name, const char *value)
{
    size_t size = strlen(name) + strlen(value) + 1;
    char *text = malloc(size);
    if (text == NULL) {
        fprintf(stderr, "launcher: out of memory\n");
        exit(2);
    }
    snprintf(text, size, "%s%s", name, value);
    return text;
}

static char *statements_option(int descriptor)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", descriptor);
    return option("--queries-file=", path);
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: %s LIBRARY CONFIG-FILE [OPTION...]\n", argv[0]);
        return 2;
    }

    /* Before any thread exists, so that every thread of ClickHouse inherits the mask and only ours waits. */
    static struct stop_watch watch;
    sigemptyset(&watch.signals);
    sigaddset(&watch.signals, SIGTERM);
    sigaddset(&watch.signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &watch.signals, NULL);

    int listen_pipe[2];
    int open_pipe_ends[2];
    open_pipe(listen_pipe);
    open_pipe(open_pipe_ends);
    if (write(listen_pipe[1], LISTEN_STATEMENTS, sizeof LISTEN_STATEMENTS - 1) != (ssize_t)(sizeof LISTEN_STATEMENTS - 1)) {
        fprintf(stderr, "launcher: cannot write to a pipe: %s\n", strerror(errno));
        return 2;
    }
    close(listen_pipe[1]);
    watch.open_end = open_pipe_ends[1];

    void *library = dlopen(argv[1], RTLD_NOW);
    if (library == NULL) {
        fprintf(stderr, "launcher: cannot load ClickHouse: %s\n", dlerror());
        return 2;
    }
    query_cmdline_function query_cmdline;
    result_error_function result_error;
    destroy_result_function destroy_result;
    symbol(library, "chdb_query_cmdline", &query_cmdline);
    symbol(library, "chdb_result_error", &result_error);
    symbol(library, "chdb_destroy_query_result", &destroy_result);

    pthread_t stop_thread;
    int failure = pthread_create(&stop_thread, NULL, wait_for_stop, &watch);
    if (failure != 0) {
        fprintf(stderr, "launcher: cannot start a thread: %s\n", strerror(failure));
        return 2;
    }

    int options = argc - 3;
    char **arguments = calloc((size_t)options + 5, sizeof *arguments);
    if (arguments == NULL) {
        fprintf(stderr, "launcher: out of memory\n");
        return 2;
    }
    int count = 0;
    arguments[count++] = "clickhouse-local";
    arguments[count++] = option("--config-file=", argv[2]);
    for (int index = 0; index < options; index++)
        arguments[count++] = argv[3 + index];
    arguments[count++] = statements_option(listen_pipe[0]);
    arguments[count++] = statements_option(open_pipe_ends[0]);

    chdb_result *result = query_cmdline(count, arguments);

    int status = 0;
    if (result == NULL) {
        fprintf(stderr, "launcher: ClickHouse ended without a result\n");
        status = 1;
    } else {
        const char *error = result_error(result);
        if (error != NULL && *error != '\0') {
            fprintf(stderr, "launcher: ClickHouse reported: %s\n", error);
            status = 1;
        } else if (!stop_requested) {
            fprintf(stderr, "launcher: ClickHouse ended by itself\n");
            status = 1;
        }
        destroy_result(result);
    }
    if (status == 0)
        fprintf(stderr, "launcher: stopped\n");
    fflush(NULL);
    _exit(status); /* the library's own static destructors add nothing after its orderly shutdown */
}
