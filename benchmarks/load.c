/* The load generator: sends frames that others have built, and compares what comes back byte for byte.
 *
 * Owns connections over TCP and their timing; knows nothing of WebSocket but where the head of an HTTP
 * response ends, and the masking key (RFC 6455 section 5.3) where a client's replies are masked.
 * load.py does the same in Python, with the same command line; load_command.py writes that.
 *
 * It talks with who started it in lines: it says "ready" after its warm-up, waits for a line, works, says
 * "done OPERATIONS SECONDS", waits for a line, and ends. What goes wrong is a line "error ...".
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

enum { CHUNK = 1 << 18, HEAD_LIMIT = 1 << 14, EVENTS = 256, SILENCE_MS = 10000 };

struct bytes { char *data; size_t size; };

static struct {
    const char *mode;
    int port, fd, connections, more, window, key_offset;
    double seconds, warmup;
    long max_operations;
    struct bytes handshake, accept, request;
    struct bytes *replies;      /* what comes back, in order; the last one repeats for ever */
    size_t reply_count;
} options = { .fd = -1, .connections = 1, .window = 1, .key_offset = -1, .seconds = 1, .max_operations = 1L << 40 };

struct connection {
    int fd, number, waits_for_room;
    long to_send, received;     /* requests that may be sent now; replies that came whole */
    size_t sent;                /* bytes of the first request of to_send that have left */
    size_t position;            /* bytes of the next reply that came */
    unsigned char key[4];
};

static struct connection *connections;
static int epoll_fd, one_sends;
static long in_flight, operations, started;
static char *scratch, *window_buffer;

static void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("error ", stdout);
    vprintf(format, arguments);
    puts("");
    va_end(arguments);
    fflush(stdout);
    exit(1);
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

static void say(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    puts("");
    fflush(stdout);
    char line[64];
    if (!fgets(line, sizeof line, stdin)) exit(0);
}

static struct bytes read_file(const char *path)
{
    struct bytes content = { 0 };
    FILE *file = fopen(path, "rb");
    if (!file) fail("cannot read %s", path);
    fseek(file, 0, SEEK_END);
    content.size = ftell(file);
    rewind(file);
    content.data = malloc(content.size + 1);
    if (fread(content.data, 1, content.size, file) != content.size) fail("cannot read %s", path);
    fclose(file);
    return content;
}

/* The file of replies: each is four bytes of size, the lowest first, and its bytes. */
static void read_replies(const char *path)
{
    struct bytes content = read_file(path);
    for (size_t at = 0; at < content.size; options.reply_count++) {
        unsigned char *size = (unsigned char *)content.data + at;
        options.replies = realloc(options.replies, (options.reply_count + 1) * sizeof *options.replies);
        options.replies[options.reply_count] = (struct bytes){
            content.data + at + 4, size[0] | size[1] << 8 | size[2] << 16 | (size_t)size[3] << 24 };
        at += 4 + options.replies[options.reply_count].size;
    }
}

/* Opening and closing, one connection at a time and blocking. */

static void send_whole(int fd, struct bytes data)
{
    for (size_t sent = 0; sent < data.size;) {
        ssize_t size = send(fd, data.data + sent, data.size - sent, MSG_NOSIGNAL);
        if (size < 0) fail("send: %s", strerror(errno));
        sent += size;
    }
}

static int open_connection(void)
{
    static char head[HEAD_LIMIT + 1];
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(options.port) };
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    struct timeval patience = { .tv_sec = SILENCE_MS / 1000 };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    if (fd < 0) fail("socket: %s", strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (connect(fd, (struct sockaddr *)&address, sizeof address)) fail("connect: %s", strerror(errno));
    if (!options.handshake.size) return fd;
    send_whole(fd, options.handshake);
    size_t size = 0;
    while (head[size] = 0, !strstr(head, "\r\n\r\n")) {
        ssize_t more = recv(fd, head + size, HEAD_LIMIT - size, 0);
        if (more <= 0) fail("no response to the opening handshake, but %s", more ? strerror(errno) : "the end");
        size += more;
    }
    if (strncmp(head, "HTTP/1.1 101", 12) || !strstr(head, options.accept.data))
        fail("the opening handshake was answered with %.60s", strtok(head, "\r"));
    if (strstr(head, "\r\n\r\n") + 4 != head + size) fail("bytes that nobody asked for after the handshake");
    return fd;
}

static void handshake_once(void)
{
    struct bytes wanted = options.replies[0];
    int fd = open_connection();
    send_whole(fd, options.request);
    size_t size = 0;
    ssize_t more;
    while ((more = recv(fd, scratch + size, CHUNK - size, 0)) > 0) size += more;
    if (more < 0) fail("no end of the connection after the Close frame: %s", strerror(errno));
    if (size < wanted.size || memcmp(scratch, wanted.data, wanted.size))
        fail(size ? "another answer to the Close frame than a Close frame" : "no answer to the Close frame");
    close(fd);
    operations++;
}

/* Many connections at a time. */

static void watch(struct connection *connection, int for_room)
{
    struct epoll_event event = { .events = EPOLLIN | (for_room ? EPOLLOUT : 0), .data.ptr = connection };
    if (epoll_ctl(epoll_fd, EPOLL_CTL_MOD, connection->fd, &event)) fail("epoll_ctl: %s", strerror(errno));
    connection->waits_for_room = for_room;
}

static void send_requests(struct connection *connection)
{
    size_t request = options.request.size;
    while (connection->to_send) {
        ssize_t size = send(connection->fd, window_buffer + connection->sent,
                            connection->to_send * request - connection->sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (size < 0 && errno == EAGAIN) break;
        if (size < 0) fail("send: %s", strerror(errno));
        connection->sent += size;
        connection->to_send -= connection->sent / request;
        connection->sent %= request;
    }
    if (!connection->to_send != !connection->waits_for_room) watch(connection, connection->to_send > 0);
}

static void differs(struct connection *connection)
{
    fail("reply %ld on connection %d differs after %zu bytes", connection->received, connection->number,
         connection->position);
}

/* Compare a piece that ends with the reply or before; a masked reply is compared byte by byte. */
static void compare(struct connection *connection, struct bytes wanted, const char *piece, size_t size)
{
    if (options.key_offset < 0) {
        if (memcmp(piece, wanted.data + connection->position, size)) differs(connection);
        connection->position += size;
        return;
    }
    for (size_t i = 0; i < size; i++, connection->position++) {
        size_t place = connection->position - options.key_offset;
        unsigned char byte = piece[i], expected = wanted.data[connection->position];
        if (connection->position < (size_t)options.key_offset) {
            if (byte != expected) differs(connection);
        } else if (place < 4) {
            connection->key[place] = byte;
        } else if ((byte ^ connection->key[place & 3]) != expected) {
            differs(connection);
        }
    }
}

/* Give the number of replies that a chunk completes. */
static long count_replies(struct connection *connection, const char *chunk, size_t size)
{
    long count = 0;
    for (size_t at = 0; at < size;) {
        size_t last = options.reply_count - 1;
        struct bytes wanted = options.replies[(size_t)connection->received < last ? (size_t)connection->received : last];
        size_t piece = wanted.size - connection->position;
        if (piece > size - at) piece = size - at;
        compare(connection, wanted, chunk + at, piece);
        at += piece;
        if (connection->position == wanted.size) {
            connection->position = 0;
            connection->received++;
            count++;
        }
    }
    return count;
}

static void start_operation(struct connection *connection, long count)
{
    long cost = one_sends ? options.connections : 1;
    connection->to_send += count;
    started += count;
    in_flight += count * cost;
    send_requests(connection);
}

static void receive(struct connection *connection, double deadline)
{
    ssize_t size = recv(connection->fd, scratch, CHUNK, MSG_DONTWAIT);
    if (size < 0 && errno == EAGAIN) return;
    if (size < 0) fail("recv: %s", strerror(errno));
    if (!size) fail("connection %d ended after %ld replies", connection->number, connection->received);
    long count = count_replies(connection, scratch, size);
    if (count > in_flight) fail("a reply that nobody asked for on connection %d", connection->number);
    in_flight -= count;
    if (one_sends) {
        if (in_flight) return;
        operations++;
        connection = connections;
        count = 1;
    } else {
        operations += count;
    }
    if (started + count > options.max_operations || now() >= deadline) return;
    if (count) start_operation(connection, count);
}

static void wait_for_replies(double deadline)
{
    struct epoll_event events[EVENTS];
    while (in_flight) {
        int count = epoll_wait(epoll_fd, events, EVENTS, SILENCE_MS);
        if (count < 0) fail("epoll_wait: %s", strerror(errno));
        if (!count) fail("no reply for %d seconds, with %ld missing", SILENCE_MS / 1000, in_flight);
        for (int i = 0; i < count; i++) {
            struct connection *connection = events[i].data.ptr;
            if (events[i].events & EPOLLOUT) send_requests(connection);
            if (events[i].events & ~(uint32_t)EPOLLOUT) receive(connection, deadline);
        }
    }
}

static void start_all(int first, int count, long window)
{
    for (int i = first; i < first + count; i++) start_operation(&connections[i], window);
}

static double work(double seconds)
{
    double start = now(), deadline = start + seconds;
    operations = started = 0;
    if (!strcmp(options.mode, "handshake")) {
        while (operations < options.max_operations && now() < deadline) handshake_once();
    } else {
        start_all(0, one_sends ? 1 : options.connections, options.window);
        wait_for_replies(deadline);
    }
    return now() - start;
}

static void open_connections(int first, int count)
{
    for (int i = first; i < first + count; i++) {
        struct connection *connection = &connections[i];
        connection->number = i;
        connection->fd = options.fd >= 0 ? options.fd : open_connection();
        struct epoll_event event = { .events = EPOLLIN, .data.ptr = connection };
        if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, connection->fd, &event)) fail("epoll_ctl: %s", strerror(errno));
    }
}

/* Idle connections: each of `more` new ones exchanges one message, and stays. */
static double grow(void)
{
    double start = now();
    operations = started = 0;
    open_connections(options.connections, options.more);
    start_all(options.connections, options.more, 1);
    wait_for_replies(0);
    return now() - start;
}

static void parse(int count, char **words)
{
    static const struct option names[] = {
        { "port", 1, 0, 'p' }, { "fd", 1, 0, 'f' }, { "connections", 1, 0, 'c' }, { "more", 1, 0, 'm' },
        { "window", 1, 0, 'w' }, { "seconds", 1, 0, 's' }, { "warmup", 1, 0, 'u' }, { "max-operations", 1, 0, 'o' },
        { "handshake", 1, 0, 'h' }, { "accept", 1, 0, 'a' }, { "request", 1, 0, 'r' }, { "replies", 1, 0, 'e' },
        { "key-offset", 1, 0, 'k' }, { 0 } };
    int name;
    while ((name = getopt_long(count, words, "", names, 0)) != -1) {
        switch (name) {
        case 'p': options.port = atoi(optarg); break;
        case 'f': options.fd = atoi(optarg); break;
        case 'c': options.connections = atoi(optarg); break;
        case 'm': options.more = atoi(optarg); break;
        case 'w': options.window = atoi(optarg); break;
        case 's': options.seconds = atof(optarg); break;
        case 'u': options.warmup = atof(optarg); break;
        case 'o': options.max_operations = atol(optarg); break;
        case 'h': options.handshake = read_file(optarg); break;
        case 'a': options.accept = (struct bytes){ optarg, strlen(optarg) }; break;
        case 'r': options.request = read_file(optarg); break;
        case 'e': read_replies(optarg); break;
        case 'k': options.key_offset = atoi(optarg); break;
        default: fail("unknown option");
        }
    }
    if (optind + 1 != count || !options.request.size || !options.reply_count) fail("a mode, --request and --replies are needed");
    if (options.handshake.size && !options.accept.size) fail("--handshake needs --accept");
    options.mode = words[optind];
}

int main(int count, char **words)
{
    parse(count, words);
    /* Nothing here lasts longer, whatever the other side does. */
    alarm(60 + (unsigned)(options.warmup + options.seconds));
    one_sends = !strcmp(options.mode, "broadcast");
    int idle = !strcmp(options.mode, "idle"), handshakes = !strcmp(options.mode, "handshake");
    scratch = malloc(CHUNK);
    connections = calloc(options.connections + options.more, sizeof *connections);
    window_buffer = malloc(options.window * options.request.size);
    for (int i = 0; i < options.window; i++)
        memcpy(window_buffer + i * options.request.size, options.request.data, options.request.size);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (!handshakes) open_connections(0, options.connections);
    work(options.warmup);
    say("ready");
    double seconds = idle ? grow() : work(options.seconds);
    say("done %ld %.6f", operations, seconds);
    return 0;
}
