/* A disk that refuses to make anything durable while the file named by DISK_FAILS is there: LMDB's commit fails. With
 * DISK_FAILS_FOR only files whose path contains that text are on it. */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int is_on_it(int fd)
{
	const char *part = getenv("DISK_FAILS_FOR");
	char link[64], path[PATH_MAX];
	ssize_t len;

	if (part == NULL)
		return 1;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	len = readlink(link, path, sizeof(path) - 1);
	if (len < 0)
		return 0;
	path[len] = '\0';
	return strstr(path, part) != NULL;
}

int fdatasync(int fd)
{
	const char *file = getenv("DISK_FAILS");

	if (file != NULL && access(file, F_OK) == 0 && is_on_it(fd)) {
		errno = EIO;
		return -1;
	}
	return fsync(fd);
}
