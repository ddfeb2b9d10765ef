// SPDX-License-Identifier: Apache-2.0
/*
 * The guest's end of the channel: runs commands for the host over a virtio-serial port.
 *
 *     vm-agent PORT
 *
 * Frames go both ways: length of the payload, number of the command, kind (32 bits each,
 * little-endian), payload. vm/wire.py has the kinds. The agent says hello until the host
 * answers with the same magic; bytes before that belong to a life before a reset, and are dropped.
 *
 * One process, one loop. As process 1 it also buries orphans. A command is over when its own
 * process has ended: what it left in the background no longer reaches the host.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

enum kind {
	HELLO = 1,	/* both ways: magic; the agent adds the kernel's release */
	START = 2,	/* words, each ended by a zero */
	INPUT = 3,	/* bytes for its standard input; none for its end */
	SIGNAL = 4,	/* one byte: to its process group */
	OUTPUT = 5,
	ERRORS = 6,
	ENDED = 7,	/* status as waitpid has it */
	REFUSED = 8,	/* errno: it was not started */
};

struct header {
	uint32_t length, command, kind;
};

struct pending {
	struct pending *next;
	size_t length, done;
	char bytes[];
};

struct command {
	struct command *next;
	uint32_t number;
	pid_t pid;
	int in, out, err;
	bool in_ends;
	struct pending *first, **last;
};

#define MAGIC 16
#define CHUNK (32 << 10)
#define MOST (1 << 20)
#define COMMANDS 256

/* kept inverted, so that a copy of this program on the wire is no hello */
static const unsigned char inverted[MAGIC] = {
	0x9b, 0x8c, 0x9e, 0x8b, 0x96, 0x9a, 0x8d, 0xd2, 0x89, 0x92, 0xd2, 0x97, 0x9a, 0x93, 0x93, 0x90,
};
static unsigned char magic[MAGIC];
static int port = -1;
static struct command *commands;

static void die(const char *what)
{
	fprintf(stderr, "vm-agent: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void *get(size_t size)
{
	void *memory = calloc(1, size);

	if (!memory)
		die("memory");
	return memory;
}

static void write_all(const void *bytes, size_t length)
{
	const char *at = bytes;

	while (length) {
		ssize_t wrote = write(port, at, length);

		if (wrote < 0 && errno != EINTR && errno != EAGAIN)
			die("the port: write");
		if (wrote > 0) {
			at += wrote;
			length -= wrote;
		}
	}
}

static void send_frame(uint32_t command, enum kind kind, const void *bytes, size_t length)
{
	static char frame[sizeof(struct header) + CHUNK];
	struct header header = { length, command, kind };

	memcpy(frame, &header, sizeof(header));
	memcpy(frame + sizeof(header), bytes, length);
	write_all(frame, sizeof(header) + length);
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* -- commands ---------------------------------------------------------------- */

static struct command *find(uint32_t number)
{
	struct command *c;

	for (c = commands; c; c = c->next)
		if (c->number == number)
			return c;
	return NULL;
}

static void refuse(uint32_t number, int error)
{
	int32_t told = error;

	send_frame(number, REFUSED, &told, sizeof(told));
}

static void child(char **words, int in, int out, int err, int told)
{
	sigset_t none;
	int error, fd;

	setsid();
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	dup2(in, 0);
	dup2(out, 1);
	dup2(err, 2);
	fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	if (fd >= 0 && write(fd, "0", 1) == 1)
		close(fd);
	execvp(words[0], words);
	error = errno;
	if (write(told, &error, sizeof(error)) != sizeof(error))
		_exit(126);
	_exit(127);
}

static void start(uint32_t number, char *payload, size_t length)
{
	int in[2], out[2], err[2], told[2], error = 0;
	size_t count = 0, at;
	struct command *c;
	char **words;
	pid_t pid;

	for (at = 0; at < length; at++)
		count += !payload[at];
	if (!count || payload[length - 1])
		return refuse(number, EINVAL);
	words = get((count + 1) * sizeof(*words));
	for (at = 0, count = 0; at < length; at += strlen(payload + at) + 1)
		words[count++] = payload + at;

	if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC) ||
	    pipe2(told, O_CLOEXEC))
		die("pipe");
	pid = fork();
	if (pid < 0)
		error = errno;
	if (!pid)
		child(words, in[0], out[1], err[1], told[1]);
	free(words);
	close(in[0]);
	close(out[1]);
	close(err[1]);
	close(told[1]);
	if (!error && read(told[0], &error, sizeof(error)) != sizeof(error))
		error = 0;
	close(told[0]);
	if (error) {
		close(in[1]);
		close(out[0]);
		close(err[0]);
		return refuse(number, error);
	}
	c = get(sizeof(*c));
	*c = (struct command){
		.next = commands, .number = number, .pid = pid,
		.in = in[1], .out = out[0], .err = err[0],
	};
	c->last = &c->first;
	fcntl(c->in, F_SETFL, O_NONBLOCK);
	fcntl(c->out, F_SETFL, O_NONBLOCK);
	fcntl(c->err, F_SETFL, O_NONBLOCK);
	commands = c;
}

/* Passes on what a stream has; closes it at its end. Returns false when there is no more now. */
static bool pass_on(struct command *c, int *fd, enum kind kind)
{
	static char bytes[CHUNK];
	ssize_t got;

	if (*fd < 0)
		return false;
	got = read(*fd, bytes, sizeof(bytes));
	if (got > 0)
		send_frame(c->number, kind, bytes, got);
	else if (!got || (errno != EAGAIN && errno != EINTR))
		close_fd(fd);
	return got > 0;
}

static void drop_input(struct command *c)
{
	struct pending *p;

	while ((p = c->first)) {
		c->first = p->next;
		free(p);
	}
	c->last = &c->first;
	close_fd(&c->in);
}

static void feed(struct command *c)
{
	struct pending *p;

	while (c->in >= 0 && (p = c->first)) {
		ssize_t wrote = write(c->in, p->bytes + p->done, p->length - p->done);

		if (wrote < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (wrote < 0)
			return drop_input(c);	/* nobody reads it any more */
		p->done += wrote;
		if (p->done < p->length)
			continue;
		c->first = p->next;
		if (!c->first)
			c->last = &c->first;
		free(p);
	}
	if (c->in_ends)
		close_fd(&c->in);
}

static void take_input(struct command *c, const char *bytes, size_t length)
{
	struct pending *p;

	if (c->in < 0)
		return;
	if (length) {
		p = get(sizeof(*p) + length);
		p->length = length;
		memcpy(p->bytes, bytes, length);
		*c->last = p;
		c->last = &p->next;
	} else {
		c->in_ends = true;
	}
	feed(c);
}

static void bury(void)
{
	struct command **link, *c;
	int32_t status;
	int more;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
		for (link = &commands; (c = *link); link = &c->next)
			if (c->pid == pid)
				break;
		if (!c)
			continue;
		/* what it wrote; one that it left behind may write for ever */
		for (more = MOST / CHUNK; more && pass_on(c, &c->out, OUTPUT); more--)
			;
		for (more = MOST / CHUNK; more && pass_on(c, &c->err, ERRORS); more--)
			;
		send_frame(c->number, ENDED, &status, sizeof(status));
		*link = c->next;
		drop_input(c);
		close_fd(&c->out);
		close_fd(&c->err);
		free(c);
	}
}

/* -- the port ---------------------------------------------------------------- */

static void open_port(const char *wanted)
{
	char path[512], name[128];
	struct dirent *entry;
	int tries;
	DIR *all;
	FILE *file;

	for (tries = 0; tries < 1000; tries++, usleep(10000)) {
		all = opendir("/sys/class/virtio-ports");
		while (all && (entry = readdir(all))) {
			snprintf(path, sizeof(path), "/sys/class/virtio-ports/%s/name", entry->d_name);
			file = entry->d_name[0] == '.' ? NULL : fopen(path, "re");
			if (!file)
				continue;
			if (!fgets(name, sizeof(name), file))
				name[0] = 0;
			fclose(file);
			name[strcspn(name, "\n")] = 0;
			if (strcmp(name, wanted))
				continue;
			snprintf(path, sizeof(path), "/dev/%s", entry->d_name);
			port = open(path, O_RDWR | O_CLOEXEC);
			if (port < 0)
				continue;
			closedir(all);
			return;
		}
		if (all)
			closedir(all);
	}
	errno = ENODEV;
	die(wanted);
}

static bool readable(int milliseconds)
{
	struct pollfd p = { port, POLLIN, 0 };

	if (poll(&p, 1, milliseconds) < 1)
		return false;
	if (!(p.revents & POLLIN)) {	/* nobody at the other end */
		usleep(20000);
		return false;
	}
	return true;
}

static void read_all(void *bytes, size_t length)
{
	char *at = bytes;

	while (length) {
		ssize_t got = read(port, at, length);

		if (got < 0 && errno != EINTR && errno != EAGAIN)
			die("the port: read");
		if (!got)
			usleep(20000);
		if (got > 0) {
			at += got;
			length -= got;
		}
	}
}

static void say_hello(void)
{
	unsigned char seen[MAGIC] = { 0 };
	char hello[MAGIC + sizeof(struct utsname)];
	struct utsname names;
	size_t length;
	int at;

	for (at = 0; at < MAGIC; at++)
		magic[at] = ~inverted[at];
	uname(&names);
	length = strlen(names.release);
	memcpy(hello, magic, MAGIC);
	memcpy(hello + MAGIC, names.release, length);
	for (;;) {
		send_frame(0, HELLO, hello, MAGIC + length);
		while (readable(200)) {
			memmove(seen, seen + 1, MAGIC - 1);
			read_all(seen + MAGIC - 1, 1);
			if (!memcmp(seen, magic, MAGIC))
				return;
		}
	}
}

static void take_frame(void)
{
	static char payload[MOST];
	struct header header;
	struct command *c;

	read_all(&header, sizeof(header));
	if (header.length > sizeof(payload)) {
		errno = EPROTO;
		die("the port");
	}
	read_all(payload, header.length);
	c = find(header.command);
	if (header.kind == START)
		start(header.command, payload, header.length);
	else if (header.kind == INPUT && c)
		take_input(c, payload, header.length);
	else if (header.kind == SIGNAL && c && header.length == 1)
		kill(-c->pid, payload[0]);
}

static void loop(int children)
{
	struct pollfd polled[2 + 3 * COMMANDS];
	struct signalfd_siginfo info;
	struct command *c;
	int count;

	for (;;) {
		count = 0;
		polled[count++] = (struct pollfd){ port, POLLIN, 0 };
		polled[count++] = (struct pollfd){ children, POLLIN, 0 };
		for (c = commands; c && count + 3 <= 2 + 3 * COMMANDS; c = c->next) {
			polled[count++] = (struct pollfd){ c->out, POLLIN, 0 };
			polled[count++] = (struct pollfd){ c->err, POLLIN, 0 };
			polled[count++] = (struct pollfd){ c->first ? c->in : -1, POLLOUT, 0 };
		}
		if (poll(polled, count, -1) < 0)
			continue;
		count = 2;
		for (c = commands; c && count + 3 <= 2 + 3 * COMMANDS; c = c->next) {
			if (polled[count++].revents)
				pass_on(c, &c->out, OUTPUT);
			if (polled[count++].revents)
				pass_on(c, &c->err, ERRORS);
			if (polled[count++].revents)
				feed(c);
		}
		if (polled[1].revents && read(children, &info, sizeof(info)) > 0)
			bury();
		if (polled[0].revents & POLLIN)
			take_frame();
		else if (polled[0].revents)
			usleep(20000);	/* nobody at the other end */
	}
}

int main(int argc, char **argv)
{
	sigset_t wanted;
	int children, fd;

	if (argc != 2) {
		fprintf(stderr, "usage: vm-agent PORT\n");
		return 2;
	}
	setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 1);
	setenv("HOME", "/root", 1);
	setenv("LANG", "C.UTF-8", 1);
	prctl(PR_SET_NAME, "vm-agent");
	fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	if (fd >= 0 && write(fd, "-1000", 5) == 5)
		close(fd);
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&wanted);
	sigaddset(&wanted, SIGCHLD);
	sigprocmask(SIG_BLOCK, &wanted, NULL);
	children = signalfd(-1, &wanted, SFD_CLOEXEC | SFD_NONBLOCK);
	if (children < 0)
		die("signalfd");
	open_port(argv[1]);
	say_hello();
	loop(children);
}
