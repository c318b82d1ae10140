/*
 * Serves one connection after another, as tcpserver does, and says what each took.
 *
 * usage: metered PROGRAM [ARGUMENT ...]
 *
 * Descriptor 0 is a listening socket. For each connection PROGRAM runs with it on descriptors 0 and 1; when it has
 * ended, a line on descriptor 1 says: microseconds of user and of system time, kilobytes of peak memory, page faults,
 * exit status. A process's peak memory begins with that of the process that forked it, up to its exec; so it has to be
 * a small one, and this is why it is not the driver that forks.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static void environment(const struct sockaddr_in *remote)
{
    char port[16];

    snprintf(port, sizeof port, "%d", ntohs(remote->sin_port));
    setenv("PROTO", "TCP", 1);
    setenv("TCPREMOTEIP", inet_ntoa(remote->sin_addr), 1);
    setenv("TCPREMOTEPORT", port, 1);
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return 100;
    for (;;) {
        struct sockaddr_in remote;
        socklen_t length = sizeof remote;
        struct rusage used;
        int status, client = accept(0, (struct sockaddr *)&remote, &length);
        pid_t pid;

        if (client < 0 || (pid = fork()) < 0)
            return 111;
        if (pid == 0) {
            environment(&remote);
            if (dup2(client, 0) < 0 || dup2(client, 1) < 0 || close(client) < 0)
                _exit(111);
            execv(argv[1], argv + 1);
            _exit(127);
        }
        close(client);
        if (wait4(pid, &status, 0, &used) != pid)
            return 111;
        dprintf(1, "%ld %ld %ld %ld %d\n",
                used.ru_utime.tv_sec * 1000000L + used.ru_utime.tv_usec,
                used.ru_stime.tv_sec * 1000000L + used.ru_stime.tv_usec,
                used.ru_maxrss, used.ru_minflt, status);
    }
}
