/* A disk that refuses to make anything durable while the file named by DISK_FAILS is there: LMDB's commit fails. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

int fdatasync(int fd)
{
	const char *file = getenv("DISK_FAILS");

	if (file != NULL && access(file, F_OK) == 0) {
		errno = EIO;
		return -1;
	}
	return fsync(fd);
}
