/* A disk that fails on demand: loaded before the C library, it answers calls on files below
 * FAULTS_UNDER as the file FAULTS says. That file holds a call, the errno and how many
 * calls in a hundred fail, such as "sync 5 100"; an empty one lets everything through. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static int below(int fd) {
    const char *under = getenv("FAULTS_UNDER");
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (!under || length < 0) return 0;
    path[length] = 0;
    return strncmp(path, under, strlen(under)) == 0;
}

/* The errno that a call fails with; 0 where it does not. */
static int fails(const char *call, int fd) {
    static __thread unsigned dice = 2463534242u;
    const char *faults = getenv("FAULTS");
    char said[64] = "", name[16] = "";
    int code = 0, share = 0;
    if (!faults || !below(fd)) return 0;
    int file = open(faults, O_RDONLY | O_CLOEXEC);
    if (file < 0) return 0;
    ssize_t length = read(file, said, sizeof said - 1);
    close(file);
    if (length <= 0 || sscanf(said, "%15s %d %d", name, &code, &share) != 3) return 0;
    dice ^= dice << 13, dice ^= dice >> 17, dice ^= dice << 5;
    return strcmp(name, call) == 0 && (int)(dice % 100) < share ? code : 0;
}

#define REAL(type, name, ...) ((type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name))
#define FAIL(call, fd) do { int code = fails(call, fd); if (code) { errno = code; return -1; } } while (0)

int fsync(int fd) { FAIL("sync", fd); return REAL(int, "fsync", int)(fd); }
int fdatasync(int fd) { FAIL("sync", fd); return REAL(int, "fdatasync", int)(fd); }
ssize_t write(int fd, const void *from, size_t size) {
    FAIL("write", fd);
    return REAL(ssize_t, "write", int, const void *, size_t)(fd, from, size);
}
ssize_t pwrite(int fd, const void *from, size_t size, off_t at) {
    FAIL("write", fd);
    return REAL(ssize_t, "pwrite", int, const void *, size_t, off_t)(fd, from, size, at);
}
ssize_t pwrite64(int fd, const void *from, size_t size, off64_t at) {
    FAIL("write", fd);
    return REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t)(fd, from, size, at);
}
