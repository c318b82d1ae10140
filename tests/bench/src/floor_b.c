/*
 * Floor B: the least that answers a QMQP client. Reads the request to its end and says K.
 *
 * Nothing is checked and nothing is queued: what is left is the price of a process and of a connection.
 */
#include <string.h>
#include <unistd.h>

static char buffer[65536];

int main(void)
{
    static const char reply[] = "7:Kqueued,";
    size_t have = 0, request = 0;
    ssize_t n;
    char *colon, *digit;

    do {
        n = read(0, buffer + have, sizeof buffer - have);
        if (n <= 0)
            return 1;
        have += n;
    } while (!(colon = memchr(buffer, ':', have)));
    for (digit = buffer; digit < colon; digit++)
        request = 10 * request + (*digit - '0');
    request += colon - buffer + 2;
    while (have < request) {
        n = read(0, buffer, sizeof buffer);
        if (n <= 0)
            return 1;
        have += n;
    }
    return write(1, reply, sizeof reply - 1) < 0;
}
