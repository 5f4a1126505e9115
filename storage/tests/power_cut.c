/* A disk that keeps only what was synced, for real programs: preloaded, it copies each file at its fsync and each
 * directory's list of names at its own, and ends the process at a chosen sync. tests/power_cut.rs puts the copies
 * together: what a power cut leaves in the worst case. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static long syncs;

static void copy_file(int fd, const char *to) {
    char buffer[65536];
    char temporary[4096];
    off_t at = 0;
    ssize_t got;
    snprintf(temporary, sizeof temporary, "%s.new", to);
    int out = open(temporary, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    char self[64];
    snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
    int in = open(self, O_RDONLY); /* the descriptor may be write-only */
    if (out < 0 || in < 0) _exit(90);
    off_t len = lseek(in, 0, SEEK_END);
    while ((at = lseek(in, at, SEEK_DATA)) >= 0 && at < len) { /* holes stay holes */
        got = pread(in, buffer, sizeof buffer, at);
        if (got <= 0 || pwrite(out, buffer, got, at) != got) _exit(91);
        at += got;
    }
    if (ftruncate(out, len) != 0) _exit(92);
    close(in);
    close(out);
    rename(temporary, to);
    dup(fd); /* never closed: no other file gets this inode number */
}

static void copy_names(int fd, const char *to) {
    char self[64], path[4096];
    snprintf(self, sizeof self, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(self, path, sizeof path - 1);
    if (len < 0) _exit(93);
    path[len] = 0;
    DIR *directory = opendir(path);
    FILE *out = fopen(to, "w");
    if (!directory || !out) _exit(94);
    struct dirent *entry;
    while ((entry = readdir(directory))) {
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
            fprintf(out, "%c %lu %s\n", entry->d_type == DT_DIR ? 'd' : 'f', (unsigned long)entry->d_ino, entry->d_name);
    }
    closedir(directory);
    fclose(out);
}

static int sync_to_shadow(int fd) {
    const char *shadow = getenv("POWER_CUT_SHADOW");
    const char *cut = getenv("POWER_CUT_AT");
    struct stat stat;
    if (!shadow || !cut || fstat(fd, &stat) != 0) return 0;
    pthread_mutex_lock(&lock);
    if (syncs++ >= atol(cut)) _exit(0);
    char to[4096];
    snprintf(to, sizeof to, "%s/%lu", shadow, (unsigned long)stat.st_ino);
    if (S_ISDIR(stat.st_mode)) copy_names(fd, to);
    else if (S_ISREG(stat.st_mode)) copy_file(fd, to);
    pthread_mutex_unlock(&lock);
    return 0;
}

int fsync(int fd) { return sync_to_shadow(fd); }
int fdatasync(int fd) { return sync_to_shadow(fd); }
