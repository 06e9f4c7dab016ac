/* Preloaded into a process (LD_PRELOAD), makes system calls fail, and notes what a power cut would take back.
 *
 * Calls on what is below $SHIM_ROOT fail. $SHIM_RATE names a file that holds the probability (0 to 1); it is read again
 * every second, so that a test can change it. Each failure adds a byte to $SHIM_FAILED. With $SHIM_LOCKS, only locks on
 * byte ranges fail (fcntl), with ENOLCK.
 *
 * Of files below $SHIM_DISK, all that is written since their last sync is noted in the directory $SHIM_UNDO, in a file
 * named like the inode: for each write or truncation where it begins, the size of the file before it, how many bytes it
 * takes the place of, and these bytes. What becomes of names in a directory since its last sync is noted in a directory
 * named like its inode after a d, in lines: each name with the inode it had and the one it has (0: none). Beside them are
 * links to the files that have lost their names. A sync removes the notes of its file or directory, but not if its path
 * ends with $SHIM_LIES: such a disk says that it has what it does not have. Not noted: what is written through a memory map
 * (SQLite's -shm, which a start makes anew), directories that come and go, files that are made without O_EXCL, and names
 * that change their directory.
 *
 * $SHIM_BOOT names a file that stands for the id of this boot of the machine.
 *
 * Handles are judged by where they lead (/proc/self/fd), relative names by the directory they are relative to.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static const char boot_id[] = "/proc/sys/kernel/random/boot_id";
static const char *root, *failed, *disk, *undo, *lies, *boot;
static int only_locks;
static __thread int is_lock;
static char rate_file[512];
static __thread unsigned seed;
static const int errors[] = {EIO, ENOSPC, EROFS, EACCES, EDQUOT, EPERM, ENOMEM, ESTALE, EBUSY, ENOTCONN};

__attribute__((constructor)) static void begin(void)
{
    root = getenv("SHIM_ROOT");
    only_locks = getenv("SHIM_LOCKS") != NULL;
    failed = getenv("SHIM_FAILED");
    disk = getenv("SHIM_DISK");
    undo = getenv("SHIM_UNDO");
    lies = getenv("SHIM_LIES");
    boot = getenv("SHIM_BOOT");
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
    long log;
    if (!root || !path || !strstr(path, root) || only_locks != is_lock)
        return 0;
    if (!seed)
        seed = (unsigned)getpid() ^ (unsigned)time(NULL) ^ (unsigned)(unsigned long)&seed;
    likely = rate();
    if (likely <= 0 || rand_r(&seed) >= likely * RAND_MAX)
        return 0;
    if (failed && (log = syscall(SYS_openat, AT_FDCWD, failed, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600)) >= 0) {
        syscall(SYS_write, log, ".", 1);
        syscall(SYS_close, log);
    }
    errno = errors[rand_r(&seed) % (sizeof errors / sizeof *errors)];
    return 1;
}

/* Where a handle leads; 0 if that cannot be told. */
static int path_of(int fd, char path[4096])
{
    char link[64];
    ssize_t size;
    if (fd < 0)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    size = syscall(SYS_readlinkat, AT_FDCWD, link, path, 4095);
    if (size <= 0)
        return 0;
    path[size] = 0;
    return 1;
}

static int handle_fails(int fd)
{
    char path[4096];
    return root && path_of(fd, path) && fails(path);
}

static int name_fails(int directory, const char *name)
{
    return name && name[0] != '/' && directory != AT_FDCWD ? handle_fails(directory) : fails(name);
}

#define REAL(type, name, arguments) \
    static type(*real) arguments;   \
    if (!real)                      \
        real = dlsym(RTLD_NEXT, name);

static void give_up(const char *what)
{
    dprintf(2, "failshim: %s: %s\n", what, strerror(errno));
    abort();
}

/* What a power cut may take back: the bytes from `offset` on, `size` of them, which are about to be written over or cut off. */
static void note(int fd, off_t offset, size_t size)
{
    char path[4096];
    struct stat found;
    struct {
        uint64_t offset, size, count;
    } head;
    char *record;
    int log;
    if (!undo || !disk || fd <= 2 || !path_of(fd, path) || !strstr(path, disk) || syscall(SYS_fstat, fd, &found) ||
        !S_ISREG(found.st_mode))
        return;
    head.offset = (uint64_t)offset;
    head.size = (uint64_t)found.st_size;
    head.count = offset >= found.st_size ? 0 : (uint64_t)(found.st_size - offset);
    if (head.count > size)
        head.count = size;
    snprintf(path, sizeof path, "%s/%lu", undo, (unsigned long)found.st_ino);
    log = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    record = malloc(sizeof head + head.count);
    if (log < 0 || !record)
        give_up(path);
    memcpy(record, &head, sizeof head);
    if (head.count) {
        int own; /* the handle itself may be for writing only */
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        own = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
        if (own < 0 || syscall(SYS_pread64, own, record + sizeof head, head.count, offset) != (ssize_t)head.count)
            give_up(path);
        syscall(SYS_close, own);
    }
    if (syscall(SYS_write, log, record, sizeof head + head.count) != (ssize_t)(sizeof head + head.count))
        give_up(path);
    syscall(SYS_close, log);
    free(record);
}

static void note_write(int fd, size_t size)
{
    if (undo && fd > 2)
        note(fd, lseek(fd, 0, syscall(SYS_fcntl, fd, F_GETFL) & O_APPEND ? SEEK_END : SEEK_CUR), size);
}

/* The directory of a name, and the name in it; 0 if it is not below the disk. */
static int split(int at, const char *name, char directory[4096], const char **last)
{
    char *slash;
    size_t size = 0;
    if (name[0] != '/') {
        if (!path_of(at, directory))
            return 0;
        size = strlen(directory);
        directory[size++] = '/';
    }
    snprintf(directory + size, 4096 - size, "%s", name);
    slash = strrchr(directory, '/');
    *slash = 0;
    *last = slash + 1;
    return strstr(directory, disk) != NULL;
}

static unsigned long inode_at(int at, const char *name)
{
    struct stat found;
    return syscall(SYS_newfstatat, at, name, &found, AT_SYMLINK_NOFOLLOW) || S_ISDIR(found.st_mode) ? 0 : found.st_ino;
}

static void write_note(const char *directory, const char *text, int at, const char *name, unsigned long lost)
{
    char path[4096];
    struct stat found;
    int log;
    if (syscall(SYS_newfstatat, AT_FDCWD, directory, &found, 0))
        return;
    snprintf(path, sizeof path, "%s/d%lu", undo, (unsigned long)found.st_ino);
    syscall(SYS_mkdirat, AT_FDCWD, path, 0700);
    if (lost) {
        snprintf(path, sizeof path, "%s/d%lu/%lu", undo, (unsigned long)found.st_ino, lost);
        syscall(SYS_linkat, at, name, AT_FDCWD, path, 0);
    }
    snprintf(path, sizeof path, "%s/d%lu/names", undo, (unsigned long)found.st_ino);
    log = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log < 0 || syscall(SYS_write, log, text, strlen(text)) != (ssize_t)strlen(text))
        give_up(path);
    syscall(SYS_close, log);
}

/* A file is about to lose its name (no `other`), or to get another in the same directory. */
static void note_names(int at, const char *name, int to, const char *other, unsigned flags)
{
    char directory[4096], second[4096], text[9000];
    const char *last, *new_last;
    unsigned long was, other_was;
    if (!undo || !disk || !split(at, name, directory, &last) || !(was = inode_at(at, name)))
        return;
    if (!other) {
        snprintf(text, sizeof text, "%s/%s\t%lu\t0\n", directory, last, was);
        write_note(directory, text, at, name, was);
    } else if (split(to, other, second, &new_last) && !strcmp(directory, second)) {
        other_was = inode_at(to, other);
        snprintf(text, sizeof text, "%s/%s\t%lu\t%lu\t%s/%s\t%lu\t%lu\n", directory, last, was,
                 flags & RENAME_EXCHANGE ? other_was : 0, directory, new_last, other_was, was);
        write_note(directory, text, to, other, flags ? 0 : other_was);
    }
}

static void note_created(int at, const char *name, int fd)
{
    char directory[4096], text[9000];
    const char *last;
    struct stat found;
    if (undo && disk && split(at, name, directory, &last) && !syscall(SYS_fstat, fd, &found)) {
        snprintf(text, sizeof text, "%s/%s\t0\t%lu\n", directory, last, (unsigned long)found.st_ino);
        write_note(directory, text, 0, NULL, 0);
    }
}

/* A file or directory is on disk: nothing of it can be taken back. */
static void forget_synced(int fd)
{
    char path[4096];
    struct stat found;
    size_t size, end = lies ? strlen(lies) : 0;
    struct dirent *entry;
    DIR *notes;
    if (!undo || !path_of(fd, path) || syscall(SYS_fstat, fd, &found))
        return;
    size = strlen(path);
    if (end && size >= end && !strcmp(path + size - end, lies))
        return;
    snprintf(path, sizeof path, S_ISDIR(found.st_mode) ? "%s/d%lu" : "%s/%lu", undo, (unsigned long)found.st_ino);
    if (!S_ISDIR(found.st_mode)) {
        syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    } else if ((notes = opendir(path))) {
        syscall(SYS_unlinkat, dirfd(notes), "names", 0);
        while ((entry = readdir(notes))) {
            snprintf(path, sizeof path, "%s/%s", undo, entry->d_name);
            syscall(SYS_unlinkat, AT_FDCWD, path, 0); /* first: without its last name, its inode may be given to another file */
            syscall(SYS_unlinkat, dirfd(notes), entry->d_name, 0);
        }
        closedir(notes);
    }
}

#define CALL(type, name, arguments, passed, condition) NOTED(type, name, arguments, passed, condition, , )

/* A call, with what is done before it and, if it succeeds, after it. */
#define NOTED(type, name, arguments, passed, condition, before, after) \
    type name arguments                                                \
    {                                                                  \
        type outcome;                                                  \
        REAL(type, #name, arguments)                                   \
        if (condition)                                                 \
            return -1;                                                 \
        before;                                                        \
        outcome = real passed;                                         \
        if (outcome != -1) {                                           \
            after;                                                     \
        }                                                              \
        return outcome;                                                \
    }

NOTED(int, fsync, (int fd), (fd), handle_fails(fd), , forget_synced(fd))
NOTED(int, fdatasync, (int fd), (fd), handle_fails(fd), , forget_synced(fd))
NOTED(ssize_t, write, (int fd, const void *data, size_t size), (fd, data, size), fd > 2 && handle_fails(fd),
      note_write(fd, size), )
NOTED(ssize_t, pwrite, (int fd, const void *data, size_t size, off_t offset), (fd, data, size, offset), handle_fails(fd),
      note(fd, offset, size), )
NOTED(ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t offset), (fd, data, size, offset), handle_fails(fd),
      note(fd, offset, size), )
NOTED(int, ftruncate, (int fd, off_t size), (fd, size), handle_fails(fd), note(fd, size, SIZE_MAX), )
NOTED(int, ftruncate64, (int fd, off64_t size), (fd, size), handle_fails(fd), note(fd, size, SIZE_MAX), )
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
NOTED(int, rename, (const char *old, const char *name), (old, name), fails(name), note_names(AT_FDCWD, old, AT_FDCWD, name, 0), )
NOTED(int, renameat, (int from, const char *old, int to, const char *name), (from, old, to, name), name_fails(to, name),
      note_names(from, old, to, name, 0), )
NOTED(int, renameat2, (int from, const char *old, int to, const char *name, unsigned flags), (from, old, to, name, flags),
      name_fails(to, name), note_names(from, old, to, name, flags), )
CALL(int, link, (const char *old, const char *name), (old, name), fails(name))
CALL(int, linkat, (int from, const char *old, int to, const char *name, int flags), (from, old, to, name, flags),
     name_fails(to, name))
NOTED(int, unlink, (const char *path), (path), fails(path), note_names(AT_FDCWD, path, 0, NULL, 0), )
NOTED(int, unlinkat, (int at, const char *name, int flags), (at, name, flags), name_fails(at, name),
      note_names(at, name, 0, NULL, 0), )
CALL(int, mkdir, (const char *path, mode_t mode), (path, mode), fails(path))
CALL(int, mkdirat, (int at, const char *name, mode_t mode), (at, name, mode), name_fails(at, name))
CALL(int, rmdir, (const char *path), (path), fails(path))

/* A file is emptied after it is opened, so that what was in it can be noted. */
#define OPENING(name, declared, passed, condition, at) \
    int name declared                                 \
    {                                                 \
        va_list more;                                 \
        mode_t mode;                                  \
        int fd;                                       \
        REAL(int, #name, declared)                    \
        va_start(more, flags);                        \
        mode = va_arg(more, mode_t);                  \
        va_end(more);                                 \
        if (condition)                                \
            return -1;                                \
        if (boot && !strcmp(path, boot_id))           \
            path = boot;                              \
        fd = real passed;                             \
        if (fd >= 0 && flags & O_TRUNC) {             \
            note(fd, 0, SIZE_MAX);                    \
            syscall(SYS_ftruncate, fd, 0);            \
        }                                             \
        if (fd >= 0 && flags & O_EXCL)                \
            note_created(at, path, fd);               \
        return fd;                                    \
    }

#define OPEN(name) OPENING(name, (const char *path, int flags, ...), (path, flags & ~O_TRUNC, mode), fails(path), AT_FDCWD)
#define OPEN_AT(name)                                                                             \
    OPENING(name, (int at, const char *path, int flags, ...), (at, path, flags & ~O_TRUNC, mode), \
            name_fails(at, path), at)

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

/* What has no function of its own in the C library comes through here: openat2, and syncs of several files at once. Other
 * numbers are passed on as they are. */
long syscall(long number, ...)
{
    va_list more;
    long a, b, c, d, e, f, outcome;
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
    if (number == SYS_openat2) {
        if (name_fails((int)a, (const char *)b))
            return -1;
        outcome = real(number, a, b, c, d, e, f);
        if (outcome >= 0 && *(uint64_t *)c & O_EXCL) /* struct open_how begins with the flags */
            note_created((int)a, (const char *)b, (int)outcome);
        return outcome;
    }
#endif
    outcome = real(number, a, b, c, d, e, f);
    if (number == SYS_io_getevents) { /* files that were synced together: what was asked for has the handle as its data */
        struct io_event *events = (struct io_event *)d;
        for (long place = 0; place < outcome; place++) {
            if (events[place].res == 0 && handle_fails((int)events[place].data))
                events[place].res = -errno;
            if (events[place].res == 0)
                forget_synced((int)events[place].data);
        }
    }
    return outcome;
}
