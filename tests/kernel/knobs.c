// SPDX-License-Identifier: GPL-2.0-only
/*
 * Writers that write anything to knobs, in any order, all at once.
 *
 *	knobs SECONDS WRITERS PATH:MIN:MAX:ERRORS...
 *
 * ERRORS are the errors that a value in range may meet, with commas. A value
 * out of range must be EINVAL, as must be what is no number. What is read must
 * always be in range. Prints how often each error came, and ends with 0; or
 * tells the first answer that is wrong, and ends with 1. A file that cannot be
 * opened or read for want of memory is let be: that is not the knob's answer.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct knob {
	char path[128];
	long long min, max;
	char errors[64];
};

static struct knob knobs[32];
static int nr_knobs;
static atomic_int done;
static atomic_ulong answers[256];

static void fail(const struct knob *knob, const char *text, const char *what, int err)
{
	fprintf(stderr, "knobs: %s: %s: %s: %s\n", knob->path, text, what, err ? strerrorname_np(err) : "success");
	_exit(1);
}

static unsigned int random_number(unsigned int *seed)
{
	*seed = *seed * 1664525 + 1013904223;
	return *seed >> 8;
}

static void look(const struct knob *knob)
{
	char text[64] = "";
	int fd = open(knob->path, O_RDONLY), err = 0;
	long long value;

	if (fd < 0 || read(fd, text, sizeof(text) - 1) < 0)
		err = errno;
	if (fd >= 0)
		close(fd);
	if (err == ENOMEM)
		return;
	if (err || !*text)
		fail(knob, "", "cannot be read", err);
	value = strtoll(text, NULL, 10);
	if (value < knob->min || value > knob->max)
		fail(knob, text, "read, and out of range", 0);
}

static void attempt(const struct knob *knob, unsigned int *seed)
{
	char text[64];
	long long value = knob->min;
	int good = 1, err = 0, fd;

	switch (random_number(seed) % 8) {
	case 0:
		value = knob->min - 1;
		break;
	case 1:
		value = knob->max + 1;
		break;
	case 2:
		value = -2147483649LL;
		break;
	case 3:
		good = 0;
		break;
	case 4:
		value = knob->max;
		break;
	default:
		value = knob->min + random_number(seed) % (knob->max - knob->min + 1);
	}
	snprintf(text, sizeof(text), "%lld\n", value);
	if (!good)
		strcpy(text, "abc\n");
	else
		good = value >= knob->min && value <= knob->max;

	fd = open(knob->path, O_WRONLY);
	if (fd < 0 && errno == ENOMEM)
		return;
	if (fd < 0)
		fail(knob, text, "cannot be opened", errno);
	if (write(fd, text, strlen(text)) < 0)
		err = errno;
	close(fd);
	answers[err]++;
	if (!good && err != EINVAL)
		fail(knob, text, "expected EINVAL", err);
	if (good && err && !strstr(knob->errors, strerrorname_np(err)))
		fail(knob, text, "expected success", err);
}

static void *writer(void *arg)
{
	unsigned int seed = 1000003 * (unsigned int)(intptr_t)arg;

	while (!done) {
		const struct knob *knob = &knobs[random_number(&seed) % nr_knobs];

		attempt(knob, &seed);
		look(&knobs[random_number(&seed) % nr_knobs]);
	}
	return NULL;
}

int main(int argc, char **argv)
{
	pthread_t threads[64];
	int writers;

	if (argc < 4) {
		fprintf(stderr, "usage: knobs SECONDS WRITERS PATH:MIN:MAX:ERRORS...\n");
		return 4;
	}
	writers = atoi(argv[2]);
	for (int i = 3; i < argc && nr_knobs < 32; i++) {
		struct knob *knob = &knobs[nr_knobs++];

		if (sscanf(argv[i], "%127[^:]:%lld:%lld:%63s", knob->path, &knob->min, &knob->max, knob->errors) < 3)
			return 4;
	}
	for (int i = 0; i < writers && i < 64; i++)
		pthread_create(&threads[i], NULL, writer, (void *)(intptr_t)(i + 1));
	sleep(atoi(argv[1]));
	done = 1;
	for (int i = 0; i < writers && i < 64; i++)
		pthread_join(threads[i], NULL);
	for (int i = 0; i < 256; i++) {
		if (answers[i])
			printf("%s=%lu ", i ? strerrorname_np(i) : "success", answers[i]);
	}
	printf("\n");
	return 0;
}
