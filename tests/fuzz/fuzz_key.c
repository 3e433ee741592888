/* SPDX-License-Identifier: BSD-2-Clause */
/* link: shardmap/decimal.o shardmap/key.o shardmap/key_input.o shardmap/key_type.o shardmap/map.o shardmap/rowhash.o shardmap/text.o */
/* fuzz_key - any bytes as a key's value. The first byte chooses the key type, the second the mode and way in, the third the
 * declared type; the rest is the value. Beyond not crashing:
 *   - a result points into the input or the scratch, and has the length of its type;
 *   - an integer read from text is the one that its canonical bytes give back as a binary parameter, and as a literal. */
#include "shardmap.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint32_t oids[] = {0, 16, 17, 19, 20, 21, 23, 25, 26, 700, 701, 705, 1042, 1043, 1082, 1114, 1700, 2950};

#define CHECK(condition)             \
	do {                         \
		if (!(condition))    \
			abort();     \
	} while (0)

static void
check_length(enum key_type type, struct span key)
{
	switch (type) {
	case KEY_INT2:
	case KEY_INT4:
	case KEY_INT8:
		CHECK(key.n == 8);
		break;
	case KEY_UUID:
		CHECK(key.n == 16);
		break;
	case KEY_DATE:
		CHECK(key.n == 4);
		break;
	case KEY_BOOL:
		CHECK(key.n == 1 && (unsigned char)key.p[0] <= 1);
		break;
	case KEY_BPCHAR:
		CHECK(key.n == 0 || key.p[key.n - 1] != ' ');
		break;
	default:
		break;
	}
}

/* key: 8 bytes that a text gave. */
static void
check_int_agrees(enum key_type type, struct span key)
{
	struct key_scratch s;
	struct span again;
	int64_t v = 0;
	char literal[32];
	for (int i = 0; i < 8; i++)
		v = (int64_t)((uint64_t)v << 8 | (unsigned char)key.p[i]);
	key_scratch_init(&s);
	CHECK(key_from_binary(type, KEY_COMPARE, 20, key, &s, &again) == KEY_OK && span_eq(key, again));
	int n = snprintf(literal, sizeof literal, "%llu", (unsigned long long)(v < 0 ? 0 - (uint64_t)v : (uint64_t)v));
	CHECK(key_from_numeric_literal(type, KEY_ASSIGN, span_of(literal, (size_t)n), v < 0, 0, &s, &again) == KEY_OK);
	CHECK(span_eq(key, again));
	key_scratch_fini(&s);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 3)
		return 0;
	enum key_type type = data[0] % (KEY_DATE + 1);
	enum key_mode mode = data[1] & 1 ? KEY_ASSIGN : KEY_COMPARE;
	uint32_t oid = oids[data[2] % ARRAY_LEN(oids)];
	struct span value = span_of((const char *)data + 3, size - 3), key;
	struct key_scratch scratch;
	enum key_result r;
	key_scratch_init(&scratch);
	switch (data[1] >> 1 & 3) {
	case 0:
		r = key_from_text(type, mode, value, &scratch, &key);
		break;
	case 1:
		r = key_from_text_as(type, mode, oid, value, &scratch, &key);
		break;
	case 2:
		r = key_from_binary(type, mode, oid, value, &scratch, &key);
		break;
	default:
		r = key_from_numeric_literal(type, mode, value, data[1] & 8, oid, &scratch, &key);
	}
	CHECK(r != KEY_NO_ROW || mode == KEY_COMPARE);
	if (r == KEY_OK) {
		uint64_t sum = shardmap_key_hash(SHARDMAP_POSTGRES, &type, &key, 1) ^ shardmap_key_hash(SHARDMAP_XXH64, &type, &key, 1);
		(void)sum;
		check_length(type, key);
		if (type <= KEY_INT8)
			check_int_agrees(type, key);
	} else {
		CHECK(key.n == 0);
	}
	key_scratch_fini(&scratch);
	return 0;
}
