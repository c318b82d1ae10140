/*
 * Floor A: the least that queues a message by cleanup(8), for one QMQP client on descriptors 0 and 1.
 *
 * usage: floor_a SOCKET
 *        floor_r [OPTION ...] SOCKET
 *
 * floor_r is the same as a resident process that forks a child for each connection and gives it a filter of system
 * calls as long as ours. With options it is master(8) that has started it, and it waits for each child; without, it
 * accepts on descriptor 0, and has many.
 *
 * Reads the request, has the bare conversation with the cleanup that listens at SOCKET, and says K. It asks for no
 * name, reads no configuration, logs nothing, checks nothing, bounds nothing: no server of use can be much cheaper.
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Postfix's line_length_limit: a longer line of content is sent in pieces. */
#define LINE 2048

static int cleanup;
static char out[65536];
static size_t filled;

static void flush(void)
{
    size_t done = 0;
    ssize_t n;

    while (done < filled) {
        if ((n = write(cleanup, out + done, filled - done)) <= 0)
            _exit(1);
        done += n;
    }
    filled = 0;
}

/* Data is at most LINE bytes, or an address that the bench itself has made. */
static void record(char type, const char *data, size_t length)
{
    size_t rest = length;

    if (sizeof out - filled < length + 6)
        flush();
    out[filled++] = type;
    for (; rest >= 128; rest >>= 7)
        out[filled++] = (rest & 127) | 128;
    out[filled++] = rest;
    memcpy(out + filled, data, length);
    filled += length;
}

static void text(char type, const char *string)
{
    record(type, string, strlen(string));
}

static void content(const char *data, const char *end)
{
    while (data < end) {
        const char *newline = memchr(data, '\n', end - data);
        const char *stop = newline ? newline : end;

        for (; stop - data > LINE; data += LINE)
            record('L', data, LINE);
        record(newline ? 'N' : 'L', data, stop - data);
        data = newline ? newline + 1 : end;
    }
}

/* What is in the netstring at *at, and how long it is. *at moves past its comma. */
static char *netstring(char **at, size_t *length)
{
    char *data = *at;

    for (*length = 0; *data != ':'; data++)
        *length = 10 * *length + (*data - '0');
    data++;
    *at = data + *length + 1;
    return data;
}

/* The whole request; what is in its outer netstring ends at *end. */
static char *request(char **end)
{
    static char first[65536];
    char *all = first, *inner, *colon;
    size_t have = 0, length;
    ssize_t n;

    do {
        if ((n = read(0, first + have, sizeof first - have)) <= 0)
            _exit(1);
        have += n;
    } while (!(colon = memchr(first, ':', have)));
    inner = first;
    netstring(&inner, &length);
    length += colon - first + 2;
    if (length > sizeof first) {
        if (!(all = malloc(length)))
            _exit(1);
        memcpy(all, first, have);
    }
    for (; have < length; have += n)
        if ((n = read(0, all + have, length - have)) <= 0)
            _exit(1);
    *end = all + length - 1;
    return all + (colon - first) + 1;
}

/* An attribute list ends with an empty name: with a second NUL. */
static void attributes(char *buffer, size_t size)
{
    size_t have = 0;
    ssize_t n;

    while (have < 2 || buffer[have - 1] || buffer[have - 2]) {
        if (have == size || (n = read(cleanup, buffer + have, size - have)) <= 0)
            _exit(1);
        have += n;
    }
}

static void envelope(const char *sender, size_t length)
{
    struct timeval now;
    char arrival[64];

    gettimeofday(&now, NULL);
    snprintf(arrival, sizeof arrival, "%ld %ld", (long)now.tv_sec, (long)now.tv_usec);
    memcpy(out, "flags\0" "114\0", 11);
    filled = 11;
    text('T', arrival);
    record('S', sender, length);
    text('A', "log_client_name=localhost");
    text('A', "log_client_address=127.0.0.1");
    text('A', "log_client_port=1024");
    text('A', "log_message_origin=localhost[127.0.0.1]");
    text('A', "log_protocol_name=QMQP");
    text('A', "client_name=localhost");
    text('A', "client_address=127.0.0.1");
    text('A', "client_port=1024");
    text('A', "client_address_type=2");
    text('A', "protocol_name=QMQP");
}

static void received(const char *queue_id)
{
    char line[512], date[64];
    time_t now = time(NULL);

    strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S +0000 (UTC)", gmtime(&now));
    text('N', "Received: from localhost (localhost [127.0.0.1])");
    snprintf(line, sizeof line, "\tby mail.bench.example (Postfix) with QMQP id %s", queue_id);
    text('N', line);
    snprintf(line, sizeof line, "\t; %s", date);
    text('N', line);
}

static int serve(const char *socket_name)
{
    static const char before_id[] = "protocol\0cleanup_protocol\0queue_id";
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    char greeting[256], status[1024], reply[256];
    char *end, *message, *sender, *at;
    size_t message_length, sender_length, length;
    int size;

    if (strlen(socket_name) >= sizeof address.sun_path)
        return 100;
    strcpy(address.sun_path, socket_name);
    cleanup = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connect(cleanup, (struct sockaddr *)&address, sizeof address) < 0)
        return 1;

    at = request(&end);
    message = netstring(&at, &message_length);
    sender = netstring(&at, &sender_length);
    attributes(greeting, sizeof greeting);
    envelope(sender, sender_length);
    while (at < end) {
        char *recipient = netstring(&at, &length);
        record('R', recipient, length);
    }
    record('M', "", 0);
    received(greeting + sizeof before_id);
    content(message, message + message_length);
    record('X', "", 0);
    record('E', "", 0);
    flush();

    attributes(status, sizeof status);
    if (strcmp(status + sizeof "status", "0") != 0)
        return 1;
    size = snprintf(reply, sizeof reply, "KOk: queued as %s", greeting + sizeof before_id);
    dprintf(1, "%d:%s,", size, reply);
    return 0;
}

#ifndef RESIDENT

int main(int argc, char **argv)
{
    return argc == 2 ? serve(argv[1]) : 100;
}

#else

/* Instructions of a child's filter, and of them those that a call passes. */
#define FILTER 160
#define PASSED 16

/* Where master(8) puts its status channel and the listening socket. */
#define STATUS 5
#define LISTEN 6

static void confine(void)
{
    static struct sock_filter program[FILTER];
    struct sock_fprog filter = { FILTER, program };
    int i;

    program[0] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0);
    program[1] = (struct sock_filter)BPF_STMT(BPF_JMP | BPF_JA, FILTER - PASSED - 3);
    for (i = 2; i < FILTER - 1; i++)
        program[i] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 10000 + i, 0, 0);
    program[FILTER - 1] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) < 0)
        _exit(1);
}

static void tell(int available)
{
    const char *generation = getenv("GENERATION");
    unsigned message[3] = { getpid(), generation ? strtoul(generation, NULL, 8) : 0, available };

    if (write(STATUS, message, sizeof message) != sizeof message)
        _exit(0);
}

static void on_child(int signal)
{
    (void)signal;
}

/* The next connection. Children that have ended meanwhile are waited for, so that what they took is counted. */
static int next(int listening)
{
    struct pollfd fds[2] = { { listening, POLLIN, 0 }, { listening == LISTEN ? STATUS : -1, POLLIN, 0 } };

    for (;;) {
        int client;

        while (listening != LISTEN && waitpid(-1, NULL, WNOHANG) > 0)
            ;
        if (poll(fds, 2, 1000) > 0) {
            if (fds[1].revents)
                _exit(0);
            if ((client = accept(listening, NULL, NULL)) >= 0)
                return client;
        }
    }
}

int main(int argc, char **argv)
{
    const char *socket_name = argv[argc - 1];
    int listening = argc > 2 ? LISTEN : 0;
    struct sigaction action = { .sa_handler = on_child };
    struct stat owner;

    if (argc < 2 || stat(socket_name, &owner) < 0)
        return 100;
    if (getuid() == 0 && (setgid(owner.st_gid) < 0 || setuid(owner.st_uid) < 0))
        return 111;
    if (listening == 0)
        sigaction(SIGCHLD, &action, NULL);
    for (;;) {
        int client = next(listening);
        pid_t child = fork();

        if (child < 0)
            return 111;
        if (child == 0) {
            if (dup2(client, 0) < 0 || dup2(client, 1) < 0 || close(client) < 0)
                _exit(111);
            confine();
            _exit(serve(socket_name));
        }
        close(client);
        if (listening == LISTEN) {
            tell(0);
            waitpid(child, NULL, 0);
            tell(1);
        }
    }
}

#endif
