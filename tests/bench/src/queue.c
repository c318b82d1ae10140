/*
 * Stands in for qmail-queue, behind qmqpd and mailfront alike: takes message and envelope, and queues nothing.
 */
#include <unistd.h>

static char buffer[65536];

static int drained(int descriptor)
{
    ssize_t n;

    while ((n = read(descriptor, buffer, sizeof buffer)) > 0)
        ;
    return n == 0;
}

int main(void)
{
    return drained(0) && drained(1) ? 0 : 54;
}
