/* Preloaded into Cyrus and Courier by the tests, which run them from where they were unpacked.
 *
 * 1. What they would tell syslog goes to the file named by SYSLOG_FILE, else to standard error, one line a message: a test machine may
 *    have no syslog, and a test wants the log of its own server only.
 * 2. Paths that are compiled in are moved: PRELOAD_PATHS is "from=to:from=to", prefixes. Courier has no other way to find its own
 *    files below another folder. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <syslog.h>
#include <unistd.h>

#define LENGTH 4096

/* The path to use instead of `path`; `space` has LENGTH bytes. */
static const char *moved(const char *path, char *space) {
    const char *row = getenv("PRELOAD_PATHS");
    while (path && row && *row) {
        size_t whole = strcspn(row, ":");
        const char *equals = memchr(row, '=', whole);
        if (equals) {
            size_t from = equals - row, to = whole - from - 1;
            if (from && strncmp(path, row, from) == 0 && (path[from] == '/' || !path[from])) {
                snprintf(space, LENGTH, "%.*s%s", (int)to, equals + 1, path + from);
                return space;
            }
        }
        row += whole + (row[whole] == ':');
    }
    return path;
}

#define NEXT(type, name) \
    static type (*next)(); \
    if (!next) next = (type(*)())dlsym(RTLD_NEXT, #name)

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        char space[LENGTH]; \
        mode_t mode = 0; \
        NEXT(int, name); \
        if (flags & (O_CREAT | __O_TMPFILE)) { \
            va_list arguments; \
            va_start(arguments, flags); \
            mode = va_arg(arguments, mode_t); \
            va_end(arguments); \
        } \
        return next(moved(path, space), flags, mode); \
    }
OPEN(open)
OPEN(open64)

#define ONE(type, name, second_type) \
    type name(const char *path, second_type second) { \
        char space[LENGTH]; \
        NEXT(type, name); \
        return next(moved(path, space), second); \
    }
ONE(FILE *, fopen, const char *)
ONE(FILE *, fopen64, const char *)
ONE(int, stat, struct stat *)
ONE(int, lstat, struct stat *)
ONE(int, stat64, struct stat64 *)
ONE(int, lstat64, struct stat64 *)
ONE(int, access, int)
ONE(int, chmod, mode_t)
ONE(int, mkdir, mode_t)
ONE(void *, dlopen, int)

int unlink(const char *path) {
    char space[LENGTH];
    NEXT(int, unlink);
    return next(moved(path, space));
}

int rename(const char *old, const char *new) {
    char space[LENGTH], other[LENGTH];
    NEXT(int, rename);
    return next(moved(old, space), moved(new, other));
}

DIR *opendir(const char *path) {
    char space[LENGTH];
    NEXT(DIR *, opendir);
    return next(moved(path, space));
}

#define SOCKET(name) \
    int name(int file, const struct sockaddr *address, socklen_t length) { \
        NEXT(int, name); \
        if (address && address->sa_family == AF_UNIX) { \
            char space[LENGTH]; \
            struct sockaddr_un other = {.sun_family = AF_UNIX}; \
            const char *old = ((const struct sockaddr_un *)address)->sun_path, *path = *old ? moved(old, space) : old; \
            if (path != old && strlen(path) < sizeof other.sun_path) { \
                strcpy(other.sun_path, path); \
                return next(file, (struct sockaddr *)&other, (socklen_t)sizeof other); \
            } \
        } \
        return next(file, address, length); \
    }
SOCKET(connect)
SOCKET(bind)

/* 3. Nothing is worth waiting for the disk. */
int fsync(int file) { return (void)file, 0; }
int fdatasync(int file) { return (void)file, 0; }

/* 4. Cyrus refuses to run as root, and another user may not be able to read the clone that it is unpacked in. */
uid_t geteuid(void) {
    const char *other = getenv("PRELOAD_EUID");
    NEXT(uid_t, geteuid);
    return other ? (uid_t)atoi(other) : next();
}

/* 5. Courier sleeps for seconds after a failed login. SLEEP_MILLISECONDS says how long any sleep is to last. */
unsigned int sleep(unsigned int seconds) {
    const char *other = getenv("SLEEP_MILLISECONDS");
    NEXT(unsigned int, sleep);
    return other ? (unsigned int)usleep(1000 * (useconds_t)atoi(other)) * 0 : next(seconds);
}

/* 6. Courier wants to become the user "courier", whom nobody has made: the current user instead. */
struct passwd *getpwnam(const char *name) {
    NEXT(struct passwd *, getpwnam);
    return strcmp(name, "courier") == 0 ? getpwuid(getuid()) : next(name);
}

int getgrnam_r(const char *name, struct group *row, char *space, size_t length, struct group **result) {
    NEXT(int, getgrnam_r);
    if (strcmp(name, "courier") == 0) return getgrgid_r(getgid(), row, space, length, result);
    return next(name, row, space, length, result);
}

/* 7. Courier would start Gamin's daemon, which outlives it; without one Courier looks for changes by itself. */
int FAMOpen(void *connection) { return (void)connection, -1; }
int FAMOpen2(void *connection, const char *name) { return (void)connection, (void)name, -1; }

static char identity[64] = "";

void openlog(const char *name, int option, int facility) {
    (void)option;
    (void)facility;
    if (name) snprintf(identity, sizeof identity, "%s", name);
}

void closelog(void) {}

static void out(int priority, const char *format, va_list arguments) {
    if ((priority & 7) == LOG_DEBUG) return;
    char line[LENGTH];
    int start = snprintf(line, sizeof line - 2, "%s[%d]: ", identity, (int)getpid());
    int length = vsnprintf(line + start, sizeof line - 2 - start, format, arguments);
    if (length < 0) return;
    length += start;
    if (length > (int)sizeof line - 3) length = sizeof line - 3;
    if (line[length - 1] != '\n') line[length++] = '\n';
    const char *path = getenv("SYSLOG_FILE");
    int file = path ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666) : 2;
    if (file < 0) return;
    if (write(file, line, length) < 0) { /* nowhere left to say so */ }
    if (file != 2) close(file);
}

void vsyslog(int priority, const char *format, va_list arguments) {
    out(priority, format, arguments);
}

void syslog(int priority, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    out(priority, format, arguments);
    va_end(arguments);
}

void __vsyslog_chk(int priority, int flag, const char *format, va_list arguments) {
    (void)flag;
    out(priority, format, arguments);
}

void __syslog_chk(int priority, int flag, const char *format, ...) {
    va_list arguments;
    (void)flag;
    va_start(arguments, format);
    out(priority, format, arguments);
    va_end(arguments);
}
