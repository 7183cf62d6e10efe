/* Attributes whose values have an order (X-ORDERED 'VALUES'): each value begins with its place, and slapd numbers them anew when
 * one comes or goes (value.c, mods.c). What a client says of single ones means something only beside those that it saw, so a
 * modify of such an attribute travels as all values that it led to. */

#include "shim.h"

#include <ctype.h>

int xs_is_ordered(const AttributeDescription *ad)
{
	return (ad->ad_type->sat_flags & SLAP_AT_ORDERED_VAL) != 0;
}

/* Whether the value has no place, or one that slapd understands. */
static int is_sound(const struct berval *value)
{
	ber_len_t i = 1;

	if (value->bv_len == 0 || value->bv_val[0] != '{') {
		return 1;
	}
	while (i < value->bv_len && isdigit((unsigned char)value->bv_val[i])) {
		i++;
	}
	return i > 1 && i < value->bv_len && value->bv_val[i] == '}';
}

static int all_sound(const Attribute *a)
{
	unsigned i;

	for (i = 0; i < a->a_numvals && is_sound(&a->a_vals[i]); i++)
		;
	return i == a->a_numvals;
}

/* slapd stores the values of an add as they are, and numbers them with the first modify. Here they are numbered at once: a
 * server that gets the entry as a state over an older one has to have the same. */
void xs_number_values(Entry *e)
{
	Attribute *a;

	for (a = e->e_attrs; a != NULL; a = a->a_next) {
		if (xs_is_ordered(a->a_desc) && all_sound(a)) {
			/* Where only some have a place it does nothing, and they stay in the order in which they came. */
			(void)ordered_value_sort(a, 0);
			ordered_value_renumber(a);
		}
	}
}

int xs_touches_ordered(const Modifications *list)
{
	for (; list != NULL; list = list->sml_next) {
		if (xs_is_ordered(list->sml_desc)) {
			return 1;
		}
	}
	return 0;
}

Attribute *xs_ordered_attributes(const Entry *e)
{
	Attribute *copies = NULL, *copy;
	const Attribute *a;

	for (a = e->e_attrs; a != NULL; a = a->a_next) {
		if (xs_is_ordered(a->a_desc)) {
			copy = attr_dup((Attribute *)a);
			copy->a_next = copies;
			copies = copy;
		}
	}
	return copies;
}
