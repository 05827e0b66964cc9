/* Makes one call of the system fail, or end the process, among those that change files below a
   folder. Loaded into a process by LD_PRELOAD, and told what to do by `faults_arm`. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <unistd.h>

enum { COUNT, FAIL_ONCE, FAIL_FROM_HERE, KILL_BEFORE, KILL_AFTER };

static char root[PATH_MAX];
static size_t root_length;
static long target;
static int way, error_number;
static long calls;

void faults_arm(const char *folder, long number, int how, int error)
{
    strncpy(root, folder, sizeof root - 1);
    root_length = strlen(root);
    target = number;
    way = how;
    error_number = error;
    __atomic_store_n(&calls, 0, __ATOMIC_SEQ_CST);
}

long faults_calls(void) { return __atomic_load_n(&calls, __ATOMIC_SEQ_CST); }

static int below(const char *path)
{
    return root_length && strncmp(path, root, root_length) == 0;
}

static int of_file(int file)
{
    char link[64], path[PATH_MAX];
    if (!root_length)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return below(path);
}

static int of_name(int folder, const char *name)
{
    if (name[0] == '/')
        return below(name);
    if (folder != AT_FDCWD)
        return of_file(folder);
    char path[PATH_MAX];
    return getcwd(path, sizeof path) && below(path);
}

/* Count a call; say whether it is to fail. */
static int is_hit(void)
{
    long number = __atomic_add_fetch(&calls, 1, __ATOMIC_SEQ_CST);
    if (way == COUNT || number < target)
        return 0;
    return way == FAIL_FROM_HERE || number == target;
}

#define REAL(name) \
    static __typeof__(name) *real; \
    if (!real) \
        real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name);

/* `part` does a part of what was asked for, as a killed process may have. */
#define FAULTY(counted, whole, part) \
    if (!(counted) || !is_hit()) \
        return whole; \
    if (way == KILL_BEFORE) { \
        part; \
        kill(getpid(), SIGKILL); \
    } \
    if (way == KILL_AFTER) { \
        (void)!(whole); \
        kill(getpid(), SIGKILL); \
    } \
    errno = error_number; \
    return -1;

ssize_t write(int file, const void *bytes, size_t size)
{
    REAL(write)
    FAULTY(of_file(file), real(file, bytes, size), (void)!real(file, bytes, size / 2))
}

ssize_t pwrite(int file, const void *bytes, size_t size, off_t at)
{
    REAL(pwrite)
    FAULTY(of_file(file), real(file, bytes, size, at), (void)!real(file, bytes, size / 2, at))
}

ssize_t pwrite64(int file, const void *bytes, size_t size, off64_t at)
{
    REAL(pwrite64)
    FAULTY(of_file(file), real(file, bytes, size, at), (void)!real(file, bytes, size / 2, at))
}

ssize_t writev(int file, const struct iovec *parts, int count)
{
    REAL(writev)
    FAULTY(of_file(file), real(file, parts, count), (void)!real(file, parts, count / 2))
}

ssize_t sendfile(int out, int in, off_t *at, size_t size)
{
    REAL(sendfile)
    FAULTY(of_file(out), real(out, in, at, size), (void)0)
}

int ftruncate(int file, off_t size)
{
    REAL(ftruncate)
    FAULTY(of_file(file), real(file, size), (void)0)
}

int ftruncate64(int file, off64_t size)
{
    REAL(ftruncate64)
    FAULTY(of_file(file), real(file, size), (void)0)
}

int fsync(int file)
{
    REAL(fsync)
    FAULTY(of_file(file), real(file), (void)0)
}

int fdatasync(int file)
{
    REAL(fdatasync)
    FAULTY(of_file(file), real(file), (void)0)
}

int rename(const char *old, const char *new)
{
    REAL(rename)
    FAULTY(of_name(AT_FDCWD, new), real(old, new), (void)0)
}

int renameat(int from, const char *old, int to, const char *new)
{
    REAL(renameat)
    FAULTY(of_name(to, new), real(from, old, to, new), (void)0)
}

int renameat2(int from, const char *old, int to, const char *new, unsigned int flags)
{
    REAL(renameat2)
    FAULTY(of_name(to, new), real(from, old, to, new, flags), (void)0)
}
