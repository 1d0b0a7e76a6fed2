/* Preloaded into a process, it makes one chosen system call on files under one folder go wrong.
 *
 * Every call below whose path lies under `root` (or whose descriptor was opened there) is numbered from 1. The call with
 * number `target` is killed before it happens, killed after it happened, refused with an errno, or carried out and then
 * reported as failed (a lost reply). Counters and the trace live in shared memory, so that they outlive a killed child.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

enum { COUNT = 0, KILL_BEFORE = 1, KILL_AFTER = 2, REFUSE = 3, LOSE_REPLY = 4, SHORT_WRITES = 5 };
enum { READING = 1, WRITING = 2 };
#define MOST_FILES 4096
#define TRACE_BYTES (1 << 18)

struct shared {
    long calls;
    long trace_length;
    char trace[TRACE_BYTES];
};

static struct shared *shared;
static char root[4096];
static size_t root_length;
static int armed, mode, failure;
static long target;
static char tracked[MOST_FILES];

__attribute__((constructor)) static void start(void) {
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

void shim_arm(const char *folder, int chosen_mode, long chosen_target, int chosen_failure) {
    snprintf(root, sizeof root, "%s", folder);
    root_length = strlen(root);
    memset(tracked, 0, sizeof tracked);
    shared->calls = shared->trace_length = 0;
    mode = chosen_mode, target = chosen_target, failure = chosen_failure;
    armed = 1;
}

void shim_disarm(void) { armed = 0; }
long shim_calls(void) { return shared->calls; }
long shim_trace(char *buffer, long size) {
    long length = shared->trace_length < size ? shared->trace_length : size;
    memcpy(buffer, shared->trace, length);
    return length;
}

static int mine(int folder, const char *path) {
    if (!armed || !path) return 0;
    if (path[0] == '/') return strncmp(path, root, root_length) == 0;
    return folder >= 0 && folder < MOST_FILES && tracked[folder];
}

static int mine_fd(int fd) { return armed && fd >= 0 && fd < MOST_FILES && tracked[fd]; }

/* 0: go on; 1: refuse; 2: carry out, then report failure; 3: carry out, then die. */
static int meet(const char *name, const char *first, const char *second) {
    char line[9000];
    long number = __atomic_add_fetch(&shared->calls, 1, __ATOMIC_SEQ_CST);
    int length = snprintf(line, sizeof line, "%s\t%s\t%s\n", name, first ? first : "", second ? second : "");
    long at = __atomic_fetch_add(&shared->trace_length, length, __ATOMIC_SEQ_CST);
    if (at + length < TRACE_BYTES) memcpy(shared->trace + at, line, length);
    if (number != target) return 0;
    if (mode == KILL_BEFORE) kill(getpid(), SIGKILL), pause();
    if (mode == REFUSE) return 1;
    if (mode == LOSE_REPLY) return 2;
    return mode == KILL_AFTER ? 3 : 0;
}

#define CALL(type, name, ...) \
    static type (*real)(); \
    if (!real) real = (type(*)())dlsym(RTLD_NEXT, name); \
    int fate = 0;

#define FINISH(result, bad) \
    if (fate == 3) kill(getpid(), SIGKILL), pause(); \
    if (fate == 2) { errno = failure; return bad; } \
    return result;

#define MEET(condition, label, a, b, bad) \
    if (condition) { fate = meet(label, a, b); if (fate == 1) { errno = failure; return bad; } }

static const char *fd_path(int fd, char *buffer, size_t size) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, buffer, size - 1);
    buffer[length < 0 ? 0 : length] = 0;
    return buffer;
}

#define OPEN(function, label) \
    int function(const char *path, int flags, ...) { \
        CALL(int, #function) \
        va_list list; va_start(list, flags); int permissions = va_arg(list, int); va_end(list); \
        int hit = mine(-1, path); \
        MEET(hit, (flags & O_CREAT) ? "create" : "open", path, NULL, -1) \
        int fd = real(path, flags, permissions); \
        if (hit && fd >= 0 && fd < MOST_FILES) tracked[fd] = (flags & O_ACCMODE) == O_RDONLY ? READING : WRITING; \
        if (fate == 2 && fd >= 0) close(fd); \
        FINISH(fd, -1) \
    }
OPEN(open, "open")
OPEN(open64, "open64")

#define OPENAT(function) \
    int function(int folder, const char *path, int flags, ...) { \
        CALL(int, #function) \
        va_list list; va_start(list, flags); int permissions = va_arg(list, int); va_end(list); \
        int hit = mine(folder, path); \
        MEET(hit, (flags & O_CREAT) ? "create" : "open", path, NULL, -1) \
        int fd = real(folder, path, flags, permissions); \
        if (hit && fd >= 0 && fd < MOST_FILES) tracked[fd] = (flags & O_ACCMODE) == O_RDONLY ? READING : WRITING; \
        FINISH(fd, -1) \
    }
OPENAT(openat)
OPENAT(openat64)

int close(int fd) {
    CALL(int, "close")
    char path[4096];
    if (mine_fd(fd)) {
        fate = meet("close", fd_path(fd, path, sizeof path), NULL);
        if (fate == 1) fate = 2; /* a close that reports an error has closed all the same */
        if (fate == 2 && tracked[fd] == READING) fate = 0; /* and only what was written can fail so late */
        tracked[fd] = 0;
    }
    int result = real(fd);
    FINISH(result, -1)
}

ssize_t write(int fd, const void *data, size_t size) {
    CALL(ssize_t, "write")
    char path[4096];
    MEET(mine_fd(fd), "write", fd_path(fd, path, sizeof path), NULL, -1)
    if (mine_fd(fd) && mode == SHORT_WRITES && size > (size_t)target) size = (size_t)target;
    if (fate == 3 && size > 1) size /= 2; /* torn: half of it got there */
    ssize_t result = real(fd, data, size);
    FINISH(result, -1)
}

ssize_t read(int fd, void *data, size_t size) {
    CALL(ssize_t, "read")
    char path[4096];
    MEET(mine_fd(fd), "read", fd_path(fd, path, sizeof path), NULL, -1)
    ssize_t result = real(fd, data, size);
    FINISH(result, -1)
}

#define ON_FD(function) \
    int function(int fd) { \
        CALL(int, #function) \
        char path[4096]; \
        MEET(mine_fd(fd), "fsync", fd_path(fd, path, sizeof path), NULL, -1) \
        int result = real(fd); \
        FINISH(result, -1) \
    }
ON_FD(fsync)
ON_FD(fdatasync)

int futimens(int fd, const struct timespec times[2]) {
    CALL(int, "futimens")
    char path[4096];
    MEET(mine_fd(fd), "utime", fd_path(fd, path, sizeof path), NULL, -1)
    int result = real(fd, times);
    FINISH(result, -1)
}

int utimensat(int folder, const char *path, const struct timespec times[2], int flags) {
    CALL(int, "utimensat")
    MEET(mine(folder, path), "utime", path, NULL, -1)
    int result = real(folder, path, times, flags);
    FINISH(result, -1)
}

#define TWO_PATHS(function, label) \
    int function(const char *from, const char *to) { \
        CALL(int, #function) \
        MEET(mine(-1, from) || mine(-1, to), label, from, to, -1) \
        int result = real(from, to); \
        FINISH(result, -1) \
    }
TWO_PATHS(rename, "rename")
TWO_PATHS(link, "link")

int renameat(int a, const char *from, int b, const char *to) {
    CALL(int, "renameat")
    MEET(mine(a, from) || mine(b, to), "rename", from, to, -1)
    int result = real(a, from, b, to);
    FINISH(result, -1)
}

int linkat(int a, const char *from, int b, const char *to, int flags) {
    CALL(int, "linkat")
    MEET(mine(a, from) || mine(b, to), "link", from, to, -1)
    int result = real(a, from, b, to, flags);
    FINISH(result, -1)
}

#define ONE_PATH(function, label) \
    int function(const char *path) { \
        CALL(int, #function) \
        MEET(mine(-1, path), label, path, NULL, -1) \
        int result = real(path); \
        FINISH(result, -1) \
    }
ONE_PATH(unlink, "unlink")
ONE_PATH(rmdir, "rmdir")

int unlinkat(int folder, const char *path, int flags) {
    CALL(int, "unlinkat")
    MEET(mine(folder, path), "unlink", path, NULL, -1)
    int result = real(folder, path, flags);
    FINISH(result, -1)
}

int mkdir(const char *path, mode_t permissions) {
    CALL(int, "mkdir")
    MEET(mine(-1, path), "mkdir", path, NULL, -1)
    int result = real(path, permissions);
    FINISH(result, -1)
}

int mkdirat(int folder, const char *path, mode_t permissions) {
    CALL(int, "mkdirat")
    MEET(mine(folder, path), "mkdir", path, NULL, -1)
    int result = real(folder, path, permissions);
    FINISH(result, -1)
}

DIR *opendir(const char *path) {
    CALL(DIR *, "opendir")
    MEET(mine(-1, path), "list", path, NULL, NULL)
    DIR *result = real(path);
    FINISH(result, NULL)
}
