/* Stands between a process and its file system, for tests: counts the calls that change something below one folder,
 * and lets the k-th of them fail, or the process die or halt there; or writes down everything that was asked for.
 *
 * Loaded with LD_PRELOAD. It does nothing until shim_arm() is called, which a forked process does through ctypes: so
 * thousands of crashes cost a fork each, and not the start of an interpreter. Calls that the C library makes for its own
 * streams (fopen) do not pass through here; Python and Rust do not use them.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum mode { OFF, KILL, TORN, ERROR, SHORT, FULL, HALT, RECORD };
enum kind { MAKE = 1, WRITE = 2, SYNC = 4, NAME = 8, REMOVE = 16, CUT = 32 };

static enum mode mode = OFF;
static long target, count;
static int fault, kinds, trace = -1;
static char folder[PATH_MAX];
static size_t folder_length;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static __thread int inside;

/* Arm it: mode, the number of the call (from 1), the errno of ERROR, the kinds of calls that count, the folder, and where
 * RECORD writes. */
void shim_arm(int how, long number, int error, int which, const char *below, int into) {
    if (!realpath(below, folder)) snprintf(folder, sizeof folder, "%s", below);
    folder_length = strlen(folder);
    target = number, fault = error, kinds = which, trace = into, count = 0;
    mode = how;
}

long shim_count(void) { return count; }

/* What the process has told others is safe: it stands between the calls that were made before and after. */
void shim_mark(const char *text) {
    if (trace < 0) return;
    char line[PATH_MAX];
    int length = snprintf(line, sizeof line, "mark\t%s\t\t0\t0\n", text);
    pthread_mutex_lock(&lock);
    syscall(SYS_write, trace, line, (size_t)length);
    pthread_mutex_unlock(&lock);
}

static int below(const char *path) {
    return !strncmp(path, folder, folder_length) && (path[folder_length] == '/' || !path[folder_length]);
}

static void path_of(int descriptor, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    path[length > 0 ? length : 0] = 0;
}

static void whole(int place, const char *name, char *path) {
    char start[PATH_MAX];
    if (*name == '/') {
        snprintf(path, PATH_MAX, "%s", name);
        return;
    }
    if (place != AT_FDCWD) path_of(place, start);
    else if (!getcwd(start, sizeof start)) *start = 0;
    if (snprintf(path, PATH_MAX, "%s/%s", start, name) >= PATH_MAX) *path = 0;
}

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

enum verdict { GO, FAIL, HALF, HALF_AND_DIE, GO_AND_DIE };

/* Count a call and say what is to become of it. */
static enum verdict meet(enum kind kind) {
    if (mode == RECORD || !(kinds & kind)) return GO;
    long mine = __sync_add_and_fetch(&count, 1);
    if (mode == FULL && mine >= target) return FAIL;
    if (mine != target) return GO;
    if (mode == KILL) die();
    if (mode == HALT) kill(getpid(), SIGSTOP);
    if (mode == TORN) return kind == WRITE ? HALF_AND_DIE : GO_AND_DIE;
    if (mode == ERROR) return FAIL;
    return mode == SHORT ? HALF : GO;
}

static void note(const char *what, const char *one, const char *other, long offset, const void *data, size_t size) {
    char line[3 * PATH_MAX];
    int length = snprintf(line, sizeof line, "%s\t%s\t%s\t%ld\t%zu\n", what, one, other, offset, size);
    syscall(SYS_write, trace, line, (size_t)length);
    if (size && data) syscall(SYS_write, trace, data, size);
}

/* Carry out `call` as the fault has it; in RECORD, one at a time, so that the record has the order of what happened. */
#define CARRY_OUT(kind, call, noted) do { \
    enum verdict verdict = meet(kind); \
    if (verdict == FAIL) { errno = fault; return -1; } \
    if (mode == RECORD) { pthread_mutex_lock(&lock); inside++; } \
    __typeof__(call) result = (call); \
    int kept = errno; \
    if (mode == RECORD) { if (result >= 0) { noted; } inside--; pthread_mutex_unlock(&lock); } \
    if (verdict == GO_AND_DIE) die(); \
    errno = kept; \
    return result; \
} while (0)

static int watched(int place, const char *name, char *path) {
    if (mode == OFF || inside) return 0;
    whole(place, name, path);
    return below(path);
}

static int watched_fd(int descriptor, char *path) {
    if (mode == OFF || inside || descriptor == trace) return 0;
    path_of(descriptor, path);
    return *path && below(path);
}

static int opened(int place, const char *name, int flags, mode_t bits) {
    char path[PATH_MAX];
    if (!(flags & (O_CREAT | O_TRUNC)) || !watched(place, name, path))
        return (int)syscall(SYS_openat, place, name, flags, bits);
    CARRY_OUT(MAKE, (int)syscall(SYS_openat, place, name, flags, bits),
              note("open", path, flags & O_TRUNC ? "cut" : "", 0, NULL, 0));
}

#define OPENING mode_t bits = 0; \
    if (flags & (O_CREAT | O_TMPFILE)) { va_list rest; va_start(rest, flags); bits = va_arg(rest, mode_t); va_end(rest); }

int open(const char *name, int flags, ...) { OPENING return opened(AT_FDCWD, name, flags, bits); }
int open64(const char *name, int flags, ...) { OPENING return opened(AT_FDCWD, name, flags, bits); }
int openat(int place, const char *name, int flags, ...) { OPENING return opened(place, name, flags, bits); }
int openat64(int place, const char *name, int flags, ...) { OPENING return opened(place, name, flags, bits); }
int creat(const char *name, mode_t bits) { return opened(AT_FDCWD, name, O_CREAT | O_WRONLY | O_TRUNC, bits); }

static ssize_t written(int descriptor, const void *data, size_t size, long offset) {
    char path[PATH_MAX];
    if (!watched_fd(descriptor, path))
        return offset < 0 ? syscall(SYS_write, descriptor, data, size)
                          : syscall(SYS_pwrite64, descriptor, data, size, offset);
    enum verdict verdict = meet(WRITE);
    if (verdict == FAIL) { errno = fault; return -1; }
    if (verdict == HALF || verdict == HALF_AND_DIE) size = size > 1 ? size / 2 : size;
    if (mode == RECORD) pthread_mutex_lock(&lock);
    ssize_t result = offset < 0 ? syscall(SYS_write, descriptor, data, size)
                                : syscall(SYS_pwrite64, descriptor, data, size, offset);
    int kept = errno;
    if (mode == RECORD) {
        long start = offset < 0 ? lseek(descriptor, 0, SEEK_CUR) - result : offset;
        if (result > 0) note("write", path, "", start, data, (size_t)result);
        pthread_mutex_unlock(&lock);
    }
    if (verdict == HALF_AND_DIE || verdict == GO_AND_DIE) die();
    errno = kept;
    return result;
}

ssize_t write(int descriptor, const void *data, size_t size) { return written(descriptor, data, size, -1); }
ssize_t pwrite(int descriptor, const void *data, size_t size, off_t offset) {
    return written(descriptor, data, size, offset);
}
ssize_t pwrite64(int descriptor, const void *data, size_t size, off64_t offset) {
    return written(descriptor, data, size, offset);
}
ssize_t writev(int descriptor, const struct iovec *parts, int number) {
    char path[PATH_MAX];
    if (!watched_fd(descriptor, path) || number < 1) return syscall(SYS_writev, descriptor, parts, number);
    /* A short write is a legal answer, so one part after the other may be asked for. */
    return written(descriptor, parts[0].iov_base, parts[0].iov_len, -1);
}

/* Copies inside of the kernel are refused, so that callers fall back to writes that can be seen. */
ssize_t sendfile(int out, int in, off_t *offset, size_t size) {
    char path[PATH_MAX];
    if (watched_fd(out, path)) { errno = EINVAL; return -1; }
    return syscall(SYS_sendfile, out, in, offset, size);
}
ssize_t sendfile64(int out, int in, off64_t *offset, size_t size) { return sendfile(out, in, offset, size); }
ssize_t copy_file_range(int in, off64_t *at, int out, off64_t *to, size_t size, unsigned flags) {
    char path[PATH_MAX];
    if (watched_fd(out, path)) { errno = EXDEV; return -1; }
    return syscall(SYS_copy_file_range, in, at, out, to, size, flags);
}

static int synced(int descriptor, long number) {
    char path[PATH_MAX];
    if (!watched_fd(descriptor, path)) return (int)syscall(number, descriptor);
    /* In a record nothing needs to reach the disk of this machine. */
    CARRY_OUT(SYNC, mode == RECORD ? 0 : (int)syscall(number, descriptor), note("sync", path, "", 0, NULL, 0));
}
int fsync(int descriptor) { return synced(descriptor, SYS_fsync); }
int fdatasync(int descriptor) { return synced(descriptor, SYS_fdatasync); }

static int cut(int descriptor, off_t size) {
    char path[PATH_MAX];
    if (!watched_fd(descriptor, path)) return (int)syscall(SYS_ftruncate, descriptor, size);
    CARRY_OUT(CUT, (int)syscall(SYS_ftruncate, descriptor, size), note("cut", path, "", size, NULL, 0));
}
int ftruncate(int descriptor, off_t size) { return cut(descriptor, size); }
int ftruncate64(int descriptor, off64_t size) { return cut(descriptor, size); }
int posix_fallocate(int descriptor, off_t offset, off_t size) {
    char path[PATH_MAX];
    if (!watched_fd(descriptor, path)) return syscall(SYS_fallocate, descriptor, 0, offset, size) ? errno : 0;
    if (meet(CUT) == FAIL) return fault;
    int failed = syscall(SYS_fallocate, descriptor, 0, offset, size) ? errno : 0;
    if (mode == RECORD && !failed) note("cut", path, "", offset + size, NULL, 0);
    return failed;
}
int posix_fallocate64(int descriptor, off64_t offset, off64_t size) { return posix_fallocate(descriptor, offset, size); }

static int renamed(int from, const char *old, int to, const char *new, unsigned flags) {
    char one[PATH_MAX], other[PATH_MAX];
    int first = watched(from, old, one), second = watched(to, new, other);
    if (!first && !second) return (int)syscall(SYS_renameat2, from, old, to, new, flags);
    CARRY_OUT(NAME, (int)syscall(SYS_renameat2, from, old, to, new, flags), note("rename", one, other, 0, NULL, 0));
}
int rename(const char *old, const char *new) { return renamed(AT_FDCWD, old, AT_FDCWD, new, 0); }
int renameat(int from, const char *old, int to, const char *new) { return renamed(from, old, to, new, 0); }
int renameat2(int from, const char *old, int to, const char *new, unsigned flags) {
    return renamed(from, old, to, new, flags);
}

static int linked(int from, const char *old, int to, const char *new, int flags) {
    char one[PATH_MAX], other[PATH_MAX];
    int here = watched(to, new, other);
    if (!here) return (int)syscall(SYS_linkat, from, old, to, new, flags);
    whole(from, old, one);
    CARRY_OUT(MAKE, (int)syscall(SYS_linkat, from, old, to, new, flags), note("link", one, other, 0, NULL, 0));
}
int link(const char *old, const char *new) { return linked(AT_FDCWD, old, AT_FDCWD, new, 0); }
int linkat(int from, const char *old, int to, const char *new, int flags) { return linked(from, old, to, new, flags); }

static int removed(int place, const char *name, int flags) {
    char path[PATH_MAX];
    if (!watched(place, name, path)) return (int)syscall(SYS_unlinkat, place, name, flags);
    CARRY_OUT(REMOVE, (int)syscall(SYS_unlinkat, place, name, flags), note("remove", path, "", 0, NULL, 0));
}
int unlink(const char *name) { return removed(AT_FDCWD, name, 0); }
int rmdir(const char *name) { return removed(AT_FDCWD, name, AT_REMOVEDIR); }
int unlinkat(int place, const char *name, int flags) { return removed(place, name, flags); }

static int made(int place, const char *name, mode_t bits) {
    char path[PATH_MAX];
    if (!watched(place, name, path)) return (int)syscall(SYS_mkdirat, place, name, bits);
    CARRY_OUT(MAKE, (int)syscall(SYS_mkdirat, place, name, bits), note("mkdir", path, "", 0, NULL, 0));
}
int mkdir(const char *name, mode_t bits) { return made(AT_FDCWD, name, bits); }
int mkdirat(int place, const char *name, mode_t bits) { return made(place, name, bits); }
