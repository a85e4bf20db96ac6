/* A wall clock that is moved: loaded before the C library, it adds to what the clock says as many
 * seconds as the file CLOCK/COMMAND holds, where COMMAND is the first argument of the program. Time
 * that only passes is left as it is. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static char path[4096];

__attribute__((constructor)) static void begin(int count, char **arguments) {
    const char *folder = getenv("CLOCK");
    if (folder && count > 1) snprintf(path, sizeof path, "%s/%s", folder, arguments[1]);
}

static long long ahead(void) {
    char said[32] = "";
    int file = path[0] ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return 0;
    ssize_t length = read(file, said, sizeof said - 1);
    close(file);
    return length > 0 ? atoll(said) : 0;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(clock, time);
    if (!failed && clock == CLOCK_REALTIME) time->tv_sec += ahead();
    return failed;
}
