/* SPDX-License-Identifier: BSD-2-Clause */
/* hba - see pgspan/hba.h. Rules are asked one after the other, as in PostgreSQL: the lists are short, and asked once a login.
 *
 * Nothing is resolved by name: a rule that holds a host's name would ask DNS from a loop, and trust the answer. samehost and
 * samenet are the addresses that the machine had when the file was read. */
#include "hba_int.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <stdarg.h>

enum conn_type { CONN_LOCAL, CONN_HOST, CONN_HOSTSSL, CONN_HOSTNOSSL };
enum address_kind { ADDRESS_ALL, ADDRESS_RANGE, ADDRESS_SAMEHOST, ADDRESS_SAMENET };

struct address {
	int family; /* AF_INET, AF_INET6; 0: none */
	unsigned char bytes[16];
};

struct range {
	struct address base;
	unsigned char mask[16];
};

struct rule {
	struct hba_rule public;
	enum conn_type type;
	enum address_kind address;
	struct range range;
	const struct hba_token *databases, *users;
};

struct hba {
	struct arena arena;
	struct rule *rules;
	size_t n, cap;
	struct range *own; /* the machine's addresses with their nets' masks; NULL unless a rule needs them */
	size_t n_own;
};

struct reading {
	struct hba *h;
	hba_mistake_fn mistake;
	void *arg;
	unsigned line;
	bool bad;
};

static void PRINTF_LIKE(2, 3)
complain(struct reading *r, const char *fmt, ...)
{
	char text[512];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	r->bad = true;
	r->mistake(r->arg, r->line, text);
}

/* ---- addresses ---- */

static bool
in_range(const struct address *a, const struct range *r)
{
	if (a->family != r->base.family)
		return false;
	for (int i = 0; i < (a->family == AF_INET ? 4 : 16); i++)
		if ((a->bytes[i] ^ r->base.bytes[i]) & r->mask[i])
			return false;
	return true;
}

static struct address
address_of(const struct sockaddr *sa)
{
	static const unsigned char mapped[12] = {[10] = 0xff, [11] = 0xff};
	struct address a = {0};
	if (sa->sa_family == AF_INET) {
		a.family = AF_INET;
		memcpy(a.bytes, &((const struct sockaddr_in *)(const void *)sa)->sin_addr, 4);
	} else if (sa->sa_family == AF_INET6) {
		const unsigned char *p = ((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr.s6_addr;
		bool is_v4 = memcmp(p, mapped, sizeof mapped) == 0;
		a.family = is_v4 ? AF_INET : AF_INET6;
		memcpy(a.bytes, is_v4 ? p + 12 : p, is_v4 ? 4 : 16);
	}
	return a;
}

static bool
parse_ip(const char *text, struct address *a)
{
	memset(a, 0, sizeof *a);
	if (inet_pton(AF_INET, text, a->bytes) == 1)
		a->family = AF_INET;
	else if (inet_pton(AF_INET6, text, a->bytes) == 1)
		a->family = AF_INET6;
	return a->family != 0;
}

static bool
parse_bits(const char *text, int family, unsigned char mask[16])
{
	int most = family == AF_INET ? 32 : 128, bits = 0;
	size_t n = strlen(text);
	if (n < 1 || n > 3 || strspn(text, "0123456789") != n || (n > 1 && *text == '0'))
		return false;
	for (const char *p = text; *p; p++)
		bits = bits * 10 + (*p - '0');
	if (bits > most)
		return false;
	memset(mask, 0, 16);
	for (int i = 0; i < bits; i++)
		mask[i / 8] |= (unsigned char)(0x80 >> i % 8);
	return true;
}

/* The machine's own addresses, for samehost and samenet. */
static void
read_own(struct hba *h)
{
	struct ifaddrs *all, *i;
	size_t n = 0;
	if (h->own || getifaddrs(&all) == -1)
		return;
	for (i = all; i; i = i->ifa_next)
		n++;
	h->own = arena_zalloc(&h->arena, (n + 1) * sizeof *h->own);
	for (i = all; i; i = i->ifa_next) {
		if (!i->ifa_addr || !i->ifa_netmask)
			continue;
		struct range *r = &h->own[h->n_own];
		i->ifa_netmask->sa_family = i->ifa_addr->sa_family;
		struct address mask = address_of(i->ifa_netmask);
		r->base = address_of(i->ifa_addr);
		memcpy(r->mask, mask.bytes, sizeof r->mask);
		if (r->base.family && mask.family == r->base.family)
			h->n_own++;
	}
	freeifaddrs(all);
}

static bool
is_own(const struct hba *h, const struct address *a, bool whole_net)
{
	for (size_t i = 0; i < h->n_own; i++) {
		struct range r = h->own[i];
		if (!whole_net)
			memset(r.mask, 0xff, sizeof r.mask);
		if (in_range(a, &r))
			return true;
	}
	return false;
}

/* ---- one rule ---- */

static bool
is_word(const struct hba_token *t, const char *word)
{
	return !t->quoted && strcmp(t->text, word) == 0;
}

static bool
check_lists(struct reading *r, const struct hba_line *l)
{
	for (const struct hba_token *t = l->fields[1].first; t; t = t->next) {
		if (is_word(t, "samerole") || is_word(t, "samegroup"))
			complain(r, "%s: pgspan knows no roles' members; expected database names, all, sameuser or replication", t->text);
		else if (!t->quoted && t->text[0] == '/')
			complain(r, "%s: regular expressions are not supported; expected database names", t->text);
	}
	for (const struct hba_token *t = l->fields[2].first; t; t = t->next) {
		if (!t->quoted && t->text[0] == '+')
			complain(r, "%s: pgspan knows no groups' members; expected user names or all", t->text);
		else if (!t->quoted && t->text[0] == '/')
			complain(r, "%s: regular expressions are not supported; expected user names", t->text);
	}
	return !r->bad;
}

static const struct hba_token *
only_one(struct reading *r, const struct hba_line *l, unsigned i, const char *what)
{
	if (i >= l->n) {
		complain(r, "the line ends before its %s", what);
		return NULL;
	}
	if (l->fields[i].n != 1) {
		complain(r, "more than one %s; a rule has one", what);
		return NULL;
	}
	return l->fields[i].first;
}

/* Takes the address, in one or two fields from *at* on. */
static bool
take_address(struct reading *r, const struct hba_line *l, unsigned *at, struct rule *rule)
{
	const struct hba_token *t = only_one(r, l, (*at)++, "address");
	char text[64];
	if (!t)
		return false;
	rule->address = is_word(t, "all") ? ADDRESS_ALL : is_word(t, "samehost") ? ADDRESS_SAMEHOST : is_word(t, "samenet") ? ADDRESS_SAMENET : ADDRESS_RANGE;
	if (rule->address == ADDRESS_SAMEHOST || rule->address == ADDRESS_SAMENET)
		read_own(r->h);
	if (rule->address != ADDRESS_RANGE)
		return true;
	size_t n = strcspn(t->text, "/");
	bool slash = t->text[n] == '/';
	snprintf(text, sizeof text, "%.*s", (int)(n < sizeof text ? n : sizeof text - 1), t->text);
	if (!parse_ip(text, &rule->range.base)) {
		complain(r, "\"%s\" is not an address; expected address/bits, an address and a mask, all, samehost or samenet (host names are not supported)", t->text);
		return false;
	}
	if (slash) {
		if (parse_bits(t->text + n + 1, rule->range.base.family, rule->range.mask))
			return true;
		complain(r, "\"%s\" has no right number of bits; expected 0 to %d behind the slash", t->text, rule->range.base.family == AF_INET ? 32 : 128);
		return false;
	}
	struct address mask;
	const struct hba_token *m = only_one(r, l, (*at)++, "mask");
	if (!m)
		return false;
	if (!parse_ip(m->text, &mask) || mask.family != rule->range.base.family) {
		complain(r, "\"%s\" is not a mask of %s; expected one behind an address without /bits", m->text, t->text);
		return false;
	}
	memcpy(rule->range.mask, mask.bytes, sizeof rule->range.mask);
	return true;
}

static bool
take_method(struct reading *r, const struct hba_line *l, unsigned at, struct rule *rule)
{
	static const struct {
		const char *word;
		enum hba_method method;
	} methods[] = {
		{"trust", HBA_TRUST}, {"reject", HBA_REJECT}, {"password", HBA_PASSWORD}, {"md5", HBA_MD5},
		{"scram-sha-256", HBA_SCRAM}, {"cert", HBA_CERT}, {"peer", HBA_PEER},
	};
	const struct hba_token *t = only_one(r, l, at, "method");
	if (!t)
		return false;
	size_t i = 0;
	while (i < ARRAY_LEN(methods) && strcmp(methods[i].word, t->text) != 0)
		i++;
	if (i == ARRAY_LEN(methods)) {
		static const char *const others[] = {"gss", "sspi", "ident", "pam", "bsd", "ldap", "radius", "oauth"};
		bool known = false;
		for (size_t k = 0; k < ARRAY_LEN(others); k++)
			known |= strcmp(others[k], t->text) == 0;
		complain(r, "\"%s\" is %s; expected trust, reject, password, md5, scram-sha-256, cert or peer", t->text,
		         known ? "not supported by pgspan" : "no method");
		return false;
	}
	rule->public.method = methods[i].method;
	if (rule->public.method == HBA_PEER && rule->type != CONN_LOCAL)
		complain(r, "peer goes with local only: only a Unix socket knows its peer");
	else if (rule->public.method == HBA_CERT && rule->type != CONN_HOSTSSL)
		complain(r, "cert goes with hostssl only: only TLS has certificates");
	return !r->bad;
}

static void
take_option(struct reading *r, const struct hba_token *t, struct rule *rule)
{
	const char *value = strchr(t->text, '=');
	size_t n = value ? (size_t)(value - t->text) : 0;
	enum hba_method m = rule->public.method;
	if (!value) {
		complain(r, "\"%s\" is not an option; expected name=value", t->text);
	} else if (n == 3 && memcmp(t->text, "map", n) == 0) {
		if (m != HBA_CERT && m != HBA_PEER)
			complain(r, "map goes with cert and peer only");
		rule->public.map = value + 1;
	} else if (n == 10 && memcmp(t->text, "clientcert", n) == 0) {
		if (rule->type != CONN_HOSTSSL)
			complain(r, "clientcert goes with hostssl only");
		else if (strcmp(value + 1, "verify-full") == 0)
			rule->public.clientcert = HBA_CERT_OF_USER;
		else if (strcmp(value + 1, "verify-ca") != 0)
			complain(r, "\"%s\" is no value of clientcert; expected verify-ca or verify-full", value + 1);
		else if (m == HBA_CERT)
			complain(r, "cert only goes with clientcert=verify-full, which it means anyhow");
		else
			rule->public.clientcert = HBA_CERT_VALID;
	} else if (n == 10 && memcmp(t->text, "clientname", n) == 0) {
		if (strcmp(value + 1, "CN") != 0)
			complain(r, "\"%s\" is no value of clientname that pgspan knows; expected CN", value + 1);
	} else {
		complain(r, "unknown option \"%.*s\"; expected map or clientcert", (int)n, t->text);
	}
}

static bool
take_type(struct reading *r, const struct hba_line *l, struct rule *rule)
{
	static const char *const types[] = {[CONN_LOCAL] = "local", [CONN_HOST] = "host", [CONN_HOSTSSL] = "hostssl", [CONN_HOSTNOSSL] = "hostnossl"};
	const struct hba_token *t = only_one(r, l, 0, "type");
	if (!t)
		return false;
	for (size_t i = 0; i < ARRAY_LEN(types); i++)
		if (strcmp(types[i], t->text) == 0) {
			rule->type = (enum conn_type)i;
			return true;
		}
	if (strcmp(t->text, "hostgssenc") == 0 || strcmp(t->text, "hostnogssenc") == 0 || strncmp(t->text, "include", 7) == 0)
		complain(r, "\"%s\" is not supported by pgspan; expected local, host, hostssl or hostnossl", t->text);
	else
		complain(r, "\"%s\" is no connection type; expected local, host, hostssl or hostnossl", t->text);
	return false;
}

static void
take_rule(struct reading *r, const struct hba_line *l)
{
	struct hba *h = r->h;
	struct rule rule = {.public.line = l->number};
	unsigned at = 3;
	if (!take_type(r, l, &rule))
		return;
	if (l->n < 3) {
		complain(r, "the line ends before its %s", l->n < 2 ? "databases" : "users");
		return;
	}
	if (!check_lists(r, l) || (rule.type != CONN_LOCAL && !take_address(r, l, &at, &rule)) || !take_method(r, l, at++, &rule))
		return;
	for (; at < l->n; at++)
		for (const struct hba_token *t = l->fields[at].first; t; t = t->next)
			take_option(r, t, &rule);
	rule.databases = l->fields[1].first;
	rule.users = l->fields[2].first;
	if (h->n == h->cap) {
		h->cap = h->cap ? 2 * h->cap : 16;
		h->rules = xrealloc(h->rules, h->cap * sizeof *h->rules);
	}
	h->rules[h->n++] = rule;
}

struct hba *
hba_parse(struct span text, const struct hba_reader *reader, hba_mistake_fn mistake, void *arg)
{
	struct hba *h = xcalloc(1, sizeof *h);
	struct reading r = {.h = h, .mistake = mistake, .arg = arg};
	char why[512];
	arena_init(&h->arena);
	struct hba_tokens t = {.mem = &h->arena, .reader = reader, .rest = text};
	bool bad = false;
	for (;;) {
		struct hba_line l;
		enum rc rc = hba_next_line(&t, &l, why, sizeof why);
		if (rc == RC_AGAIN)
			break;
		r.line = l.number;
		r.bad = false;
		if (rc == RC_FAIL)
			complain(&r, "%s", why);
		else
			take_rule(&r, &l);
		bad |= r.bad;
	}
	if (!bad)
		return h;
	hba_free(h);
	return NULL;
}

void
hba_free(struct hba *h)
{
	if (!h)
		return;
	free(h->rules);
	arena_fini(&h->arena);
	free(h);
}

const struct hba_rule *
hba_rule_at(const struct hba *h, size_t i)
{
	return i < h->n ? &h->rules[i].public : NULL;
}

/* ---- matching ---- */

static bool
database_fits(const struct rule *r, const struct hba_client *c)
{
	for (const struct hba_token *t = r->databases; t; t = t->next) {
		if (is_word(t, "replication")) {
			if (c->physical_replication)
				return true;
		} else if (!c->physical_replication &&
		           (is_word(t, "all") || (is_word(t, "sameuser") ? strcmp(c->database, c->user) == 0 : strcmp(t->text, c->database) == 0))) {
			return true;
		}
	}
	return false;
}

static bool
user_fits(const struct rule *r, const char *user)
{
	for (const struct hba_token *t = r->users; t; t = t->next)
		if (is_word(t, "all") || strcmp(t->text, user) == 0)
			return true;
	return false;
}

static bool
origin_fits(const struct hba *h, const struct rule *r, const struct hba_client *c)
{
	if (c->addr->sa_family == AF_UNIX || r->type == CONN_LOCAL)
		return c->addr->sa_family == AF_UNIX && r->type == CONN_LOCAL;
	if ((r->type == CONN_HOSTSSL && !c->tls) || (r->type == CONN_HOSTNOSSL && c->tls))
		return false;
	struct address a = address_of(c->addr);
	switch (r->address) {
	case ADDRESS_ALL:
		return true;
	case ADDRESS_RANGE:
		return in_range(&a, &r->range);
	case ADDRESS_SAMEHOST:
		return is_own(h, &a, false);
	case ADDRESS_SAMENET:
		return is_own(h, &a, true);
	}
	return false;
}

const struct hba_rule *
hba_match(const struct hba *h, const struct hba_client *c)
{
	for (size_t i = 0; i < h->n; i++)
		if (origin_fits(h, &h->rules[i], c) && database_fits(&h->rules[i], c) && user_fits(&h->rules[i], c->user))
			return &h->rules[i].public;
	return NULL;
}
