/* Loaded before libldap: a slapd of another version. */
#define _GNU_SOURCE
#include <dlfcn.h>

enum { OPT_API_INFO = 0x0000, ANOTHER_VERSION = 20499 };

/* The beginning of LDAPAPIInfo (draft-ietf-ldapext-ldap-c-api). */
struct api_info {
	int info_version;
	int api_version;
	int protocol_version;
	char **extensions;
	char *vendor_name;
	int vendor_version;
};

int ldap_get_option(void *ld, int option, void *value)
{
	static int (*next)(void *, int, void *);
	int rc;

	if (next == 0) {
		*(void **)&next = dlsym(RTLD_NEXT, "ldap_get_option");
	}
	rc = next(ld, option, value);
	if (option == OPT_API_INFO && rc == 0) {
		((struct api_info *)value)->vendor_version = ANOTHER_VERSION;
	}
	return rc;
}
