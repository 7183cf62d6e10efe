/* Is the slapd that loads us the one whose headers we were compiled with? */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <link.h>

#include "shim.h"
#include "ldap_features.h"
#include "ldap_rq.h"

/* slapd exports these objects, so the ELF symbol tells the size that slapd was compiled with. */
static int symbol_has_size(const char *name, const void *address, size_t expected)
{
	Dl_info info;
	ElfW(Sym) *symbol = NULL;

	if (!dladdr1(address, &info, (void **)&symbol, RTLD_DL_SYMENT) || symbol == NULL) {
		return 1; /* a stripped table says nothing either way */
	}
	if (symbol->st_size == expected) {
		return 1;
	}
	Debug(LDAP_DEBUG_ANY, "xmppsync: slapd's %s has %lu bytes, the headers of the build say %lu\n",
		name, (unsigned long)symbol->st_size, (unsigned long)expected);
	return 0;
}

/* connection_fake_init2 clears the whole OperationBuffer: the length of what it cleared is the size
 * that slapd was compiled with. Operation is the structure whose layout depends on most options. */
static int operation_has_size(void)
{
	enum { FILL = 0xa5, SLACK = 4096 };
	static union {
		OperationBuffer buffer;
		unsigned char bytes[sizeof(OperationBuffer) + SLACK];
	} probe;
	Connection conn = { 0 };
	size_t cleared = sizeof(probe);

	memset(&probe, FILL, sizeof(probe));
	connection_fake_init2(&conn, &probe.buffer, ldap_pvt_thread_pool_context(), 0);
	while (cleared > 0 && probe.bytes[cleared - 1] == FILL) {
		cleared--;
	}
	if (cleared != sizeof(OperationBuffer)) {
		Debug(LDAP_DEBUG_ANY, "xmppsync: slapd's operations have %lu bytes, the headers of the build say %lu\n",
			(unsigned long)cleared, (unsigned long)sizeof(OperationBuffer));
		return 0;
	}
	if (conn.c_send_ldap_result != slap_send_ldap_result) {
		Debug(LDAP_DEBUG_ANY, "xmppsync: slapd's connections are laid out otherwise than in the headers of the build\n");
		return 0;
	}
	return 1;
}

int xs_layout_matches(void)
{
	LDAPAPIInfo api = { .ldapai_info_version = LDAP_API_INFO_VERSION };
	int version = 0;

	if (ldap_get_option(NULL, LDAP_OPT_API_INFO, &api) == LDAP_OPT_SUCCESS) {
		version = api.ldapai_vendor_version;
		ldap_memfree(api.ldapai_vendor_name);
		ber_memvfree((void **)api.ldapai_extensions);
	}
	if (version != LDAP_VENDOR_VERSION) {
		Debug(LDAP_DEBUG_ANY, "xmppsync: this slapd is OpenLDAP %d, the module was built for %d; "
			"build it again with `cargo xtask install`\n", version, LDAP_VENDOR_VERSION);
		return 0;
	}
	if (!symbol_has_size("slap_schema", &slap_schema, sizeof(slap_schema))
		|| !symbol_has_size("slap_counters", &slap_counters, sizeof(slap_counters))
		|| !symbol_has_size("slapd_rq", &slapd_rq, sizeof(slapd_rq))
		|| frontendDB->bd_self != frontendDB
		|| !operation_has_size())
	{
		Debug(LDAP_DEBUG_ANY, "xmppsync: the module was built with headers of OpenLDAP %d that do not match this slapd; "
			"build it again with `cargo xtask install`\n", LDAP_VENDOR_VERSION);
		return 0;
	}
	return 1;
}
