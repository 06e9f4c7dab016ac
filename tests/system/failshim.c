/* Makes system calls fail: preloaded into a process (LD_PRELOAD), it fails calls on what is below $SHIM_ROOT.
 *
 * $SHIM_RATE names a file that holds the probability (0 to 1); it is read again every second, so that a test can change it.
 * With $SHIM_LOCKS, only locks on byte ranges fail (fcntl), with ENOLCK.
 * Handles are judged by where they lead (/proc/self/fd), relative names by the directory they are relative to.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static const char *root;
static int only_locks;
static __thread int is_lock;
static char rate_file[512];
static __thread unsigned seed;
static const int errors[] = {EIO, ENOSPC, EROFS, EACCES, EDQUOT, EPERM, ENOMEM, ESTALE, EBUSY, ENOTCONN};

__attribute__((constructor)) static void begin(void)
{
    root = getenv("SHIM_ROOT");
    only_locks = getenv("SHIM_LOCKS") != NULL;
    if (getenv("SHIM_RATE"))
        strncpy(rate_file, getenv("SHIM_RATE"), sizeof rate_file - 1);
}

static double rate(void)
{
    static __thread time_t read_at;
    static __thread double last;
    time_t now = time(NULL);
    if (now != read_at) {
        char text[32] = {0};
        long fd = syscall(SYS_openat, AT_FDCWD, rate_file, O_RDONLY | O_CLOEXEC, 0);
        read_at = now;
        last = 0;
        if (fd >= 0) {
            if (syscall(SYS_read, fd, text, sizeof text - 1) > 0)
                last = atof(text);
            syscall(SYS_close, fd);
        }
    }
    return last;
}

static int fails(const char *path)
{
    double likely;
    if (!root || !path || !strstr(path, root) || only_locks != is_lock)
        return 0;
    if (!seed)
        seed = (unsigned)getpid() ^ (unsigned)time(NULL) ^ (unsigned)(unsigned long)&seed;
    likely = rate();
    if (likely <= 0 || rand_r(&seed) >= likely * RAND_MAX)
        return 0;
    errno = errors[rand_r(&seed) % (sizeof errors / sizeof *errors)];
    return 1;
}

static int handle_fails(int fd)
{
    char link[64], path[4096];
    ssize_t size;
    if (fd < 0)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    size = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
    if (size <= 0)
        return 0;
    path[size] = 0;
    return fails(path);
}

static int name_fails(int directory, const char *name)
{
    return name && name[0] != '/' && directory != AT_FDCWD ? handle_fails(directory) : fails(name);
}

#define REAL(type, name, arguments) \
    static type(*real) arguments;   \
    if (!real)                      \
        real = dlsym(RTLD_NEXT, name);

#define CALL(type, name, arguments, passed, condition) \
    type name arguments                                \
    {                                                  \
        REAL(type, #name, arguments)                   \
        if (condition)                                 \
            return -1;                                 \
        return real passed;                            \
    }

CALL(int, fsync, (int fd), (fd), handle_fails(fd))
CALL(ssize_t, write, (int fd, const void *data, size_t size), (fd, data, size), fd > 2 && handle_fails(fd))
CALL(ssize_t, read, (int fd, void *data, size_t size), (fd, data, size), fd > 2 && handle_fails(fd))
CALL(int, fchmod, (int fd, mode_t mode), (fd, mode), handle_fails(fd))
CALL(int, fchown, (int fd, uid_t user, gid_t group), (fd, user, group), handle_fails(fd))
CALL(int, futimens, (int fd, const struct timespec times[2]), (fd, times), handle_fails(fd))
CALL(int, fstat, (int fd, struct stat *found), (fd, found), handle_fails(fd))
CALL(int, fstat64, (int fd, struct stat64 *found), (fd, found), handle_fails(fd))
CALL(int, stat, (const char *path, struct stat *found), (path, found), fails(path))
CALL(int, stat64, (const char *path, struct stat64 *found), (path, found), fails(path))
CALL(int, lstat, (const char *path, struct stat *found), (path, found), fails(path))
CALL(int, lstat64, (const char *path, struct stat64 *found), (path, found), fails(path))
CALL(int, fstatat, (int at, const char *name, struct stat *found, int flags), (at, name, found, flags), name_fails(at, name))
CALL(int, fstatat64, (int at, const char *name, struct stat64 *found, int flags), (at, name, found, flags),
     name_fails(at, name))
CALL(int, rename, (const char *old, const char *name), (old, name), fails(name))
CALL(int, renameat, (int from, const char *old, int to, const char *name), (from, old, to, name), name_fails(to, name))
CALL(int, renameat2, (int from, const char *old, int to, const char *name, unsigned flags), (from, old, to, name, flags),
     name_fails(to, name))
CALL(int, link, (const char *old, const char *name), (old, name), fails(name))
CALL(int, linkat, (int from, const char *old, int to, const char *name, int flags), (from, old, to, name, flags),
     name_fails(to, name))
CALL(int, unlink, (const char *path), (path), fails(path))
CALL(int, unlinkat, (int at, const char *name, int flags), (at, name, flags), name_fails(at, name))
CALL(int, mkdir, (const char *path, mode_t mode), (path, mode), fails(path))
CALL(int, mkdirat, (int at, const char *name, mode_t mode), (at, name, mode), name_fails(at, name))
CALL(int, rmdir, (const char *path), (path), fails(path))

#define OPEN(name)                                \
    int name(const char *path, int flags, ...)    \
    {                                             \
        va_list more;                             \
        mode_t mode;                              \
        REAL(int, #name, (const char *, int, ...)) \
        va_start(more, flags);                    \
        mode = va_arg(more, mode_t);              \
        va_end(more);                             \
        if (fails(path))                          \
            return -1;                            \
        return real(path, flags, mode);           \
    }

#define OPEN_AT(name)                                          \
    int name(int at, const char *path, int flags, ...)         \
    {                                                          \
        va_list more;                                          \
        mode_t mode;                                           \
        REAL(int, #name, (int, const char *, int, ...))        \
        va_start(more, flags);                                 \
        mode = va_arg(more, mode_t);                           \
        va_end(more);                                          \
        if (name_fails(at, path))                              \
            return -1;                                         \
        return real(at, path, flags, mode);                    \
    }

OPEN(open)
OPEN(open64)
OPEN_AT(openat)
OPEN_AT(openat64)

#define FCNTL(name)                                                          \
    int name(int fd, int command, ...)                                       \
    {                                                                        \
        va_list more;                                                        \
        void *value;                                                         \
        int failing;                                                         \
        REAL(int, #name, (int, int, ...))                                    \
        va_start(more, command);                                             \
        value = va_arg(more, void *);                                        \
        va_end(more);                                                        \
        is_lock = 1;                                                         \
        failing = only_locks && command == F_SETLK && handle_fails(fd);      \
        is_lock = 0;                                                         \
        if (failing)                                                         \
            errno = ENOLCK;                                                  \
        return failing ? -1 : real(fd, command, value);                      \
    }

FCNTL(fcntl)
FCNTL(fcntl64)

/* openat2 has no function of its own in the C library: it comes through here. Other numbers are passed on as they are. */
long syscall(long number, ...)
{
    va_list more;
    long a, b, c, d, e, f;
    REAL(long, "syscall", (long, ...))
    va_start(more, number);
    a = va_arg(more, long);
    b = va_arg(more, long);
    c = va_arg(more, long);
    d = va_arg(more, long);
    e = va_arg(more, long);
    f = va_arg(more, long);
    va_end(more);
#ifdef SYS_openat2
    if (number == SYS_openat2 && name_fails((int)a, (const char *)b))
        return -1;
#endif
    return real(number, a, b, c, d, e, f);
}
