/* The load generator: sends frames that others have built, and compares what comes back byte for byte.
 *
 * Owns connections over TCP and their timing; knows nothing of WebSocket but where the head of an HTTP
 * response ends, the masking key (RFC 6455 section 5.3) where a client's replies are masked, and the size
 * of a frame (section 5.2) where replies are recorded for who can decompress them.
 * load.py does the same in Python, with the same command line; generator.py writes that.
 *
 * It behaves like a client that is elsewhere: it does not sleep while it waits, but asks again and again,
 * because the endpoint would pay for waking it; and with --pause it answers only some time later, as over a
 * network, so that the endpoint has gone to sleep meanwhile. With --sleep it sleeps too.
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

enum { CHUNK = 1 << 18, HEAD_LIMIT = 1 << 14, EVENTS = 256, SILENCE_MS = 10000, HEADER_LIMIT = 10 };

struct bytes { char *data; size_t size; };

static struct {
    const char *mode;
    int port, fd, connections, more, window, key_offset, sleep;
    double seconds, warmup, pause;
    long max_operations;
    struct bytes handshake, accept;
    struct bytes *requests;     /* what is sent, in order, and then again from the first */
    size_t request_count;
    struct bytes *replies;      /* what comes back, in order; the last one repeats for ever */
    size_t reply_count;
    const char *record;         /* the file for what comes back, where that cannot be known before */
} options = { .fd = -1, .connections = 1, .window = 1, .key_offset = -1, .seconds = 1, .max_operations = 1L << 40 };

struct connection {
    int fd, number, opened, waits_for_room;
    long to_send, received;     /* requests that may be sent now; replies that came whole */
    long in_flight;             /* replies that are to come, but for a broadcast */
    size_t next, sent;          /* the first request of to_send; its bytes that have left */
    size_t position;            /* bytes of the next reply that came */
    unsigned char key[4];
    unsigned char header[HEADER_LIMIT];     /* of the frame that comes, where replies are recorded */
    size_t header_size, payload_left;
};

static struct connection *connections;
static int epoll_fd, one_sends;
static long in_flight, operations, started;
static char *scratch;
static struct bytes record;
static size_t record_room;

/* Requests one behind the other, as many as a window at least, and where each begins. */
static char *cycle;
static size_t *offsets, cycle_count;

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

static void wait_a_while(void)
{
    if (!options.pause) return;
    for (double end = now() + options.pause; now() < end;) continue;
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

/* A file of requests or replies: each is four bytes of size, the lowest first, and its bytes. */
static struct bytes *read_frames(const char *path, size_t *count)
{
    struct bytes content = read_file(path), *frames = NULL;
    for (size_t at = 0; at < content.size; ++*count) {
        unsigned char *size = (unsigned char *)content.data + at;
        frames = realloc(frames, (*count + 1) * sizeof *frames);
        frames[*count] = (struct bytes){
            content.data + at + 4, size[0] | size[1] << 8 | size[2] << 16 | (size_t)size[3] << 24 };
        at += 4 + frames[*count].size;
    }
    return frames;
}

static void build_cycle(void)
{
    size_t size = 0, count = options.request_count;
    while (cycle_count < (size_t)options.window) cycle_count += count;
    offsets = malloc((cycle_count + 1) * sizeof *offsets);
    for (size_t i = 0; i < cycle_count; i++) {
        offsets[i] = size;
        size += options.requests[i % count].size;
    }
    offsets[cycle_count] = size;
    cycle = malloc(size);
    for (size_t i = 0; i < cycle_count; i++)
        memcpy(cycle + offsets[i], options.requests[i % count].data, options.requests[i % count].size);
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

static ssize_t receive_some(int fd, char *room, size_t size)
{
    double patience = now() + SILENCE_MS / 1000;
    for (;;) {
        ssize_t count = recv(fd, room, size, options.sleep ? 0 : MSG_DONTWAIT);
        if (count >= 0 || errno != EAGAIN || options.sleep || now() > patience) return count;
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
    wait_a_while();
    send_whole(fd, options.handshake);
    size_t size = 0;
    while (head[size] = 0, !strstr(head, "\r\n\r\n")) {
        ssize_t more = receive_some(fd, head + size, HEAD_LIMIT - size);
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
    wait_a_while();
    send_whole(fd, options.requests[0]);
    size_t size = 0;
    ssize_t more;
    while ((more = receive_some(fd, scratch + size, CHUNK - size)) > 0) size += more;
    if (more < 0) fail("no end of the connection after the Close frame: %s", strerror(errno));
    if (size != wanted.size || memcmp(scratch, wanted.data, size))
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
    while (connection->to_send) {
        size_t first = connection->next, last = first + connection->to_send;
        size_t at = offsets[first] + connection->sent, end = offsets[last < cycle_count ? last : cycle_count];
        ssize_t size = send(connection->fd, cycle + at, end - at, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (size < 0 && errno == EAGAIN) break;
        if (size < 0) fail("send: %s", strerror(errno));
        for (at += size; first < cycle_count && at >= offsets[first + 1]; first++) connection->to_send--;
        connection->sent = at - offsets[first];
        connection->next = first % cycle_count;
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

/* Keep a chunk: the connection and the size, four bytes each and the lowest first, and the bytes. */
static void keep(struct connection *connection, const char *chunk, size_t size)
{
    unsigned number = connection->number;
    unsigned char head[8] = { number, number >> 8, number >> 16, number >> 24, size, size >> 8, size >> 16, size >> 24 };
    if (record.size + size + sizeof head > record_room)
        record.data = realloc(record.data, record_room = 2 * record_room + CHUNK + sizeof head);
    memcpy(record.data + record.size, head, sizeof head);
    memcpy(record.data + record.size + sizeof head, chunk, size);
    record.size += size + sizeof head;
}

/* Read one more byte of an unmasked header (RFC 6455 section 5.2); give whether it is whole. */
static int read_header(struct connection *connection, unsigned char byte)
{
    unsigned char *header = connection->header;
    header[connection->header_size++] = byte;
    if (connection->header_size == 2 && byte & 0x80) fail("reply %ld is masked", connection->received);
    size_t extended = connection->header_size < 2 || header[1] < 126 ? 0 : header[1] == 126 ? 2 : 8;
    if (connection->header_size < 2 + extended) return 0;
    connection->payload_left = extended ? 0 : header[1];
    for (size_t i = 0; i < extended; i++) connection->payload_left = connection->payload_left << 8 | header[2 + i];
    connection->header_size = 0;
    return 1;
}

/* Keep a chunk, and give the number of frames that it completes. */
static long record_replies(struct connection *connection, const char *chunk, size_t size)
{
    long count = 0;
    keep(connection, chunk, size);
    for (size_t at = 0; at < size;) {
        if (!connection->payload_left) {
            if (read_header(connection, chunk[at++]) && !connection->payload_left) count++;
            continue;
        }
        size_t piece = connection->payload_left < size - at ? connection->payload_left : size - at;
        at += piece;
        if (!(connection->payload_left -= piece)) count++;
    }
    connection->received += count;
    return count;
}

static void write_record(void)
{
    FILE *file = fopen(options.record, "wb");
    if (!file || fwrite(record.data, 1, record.size, file) != record.size || fclose(file))
        fail("cannot write %s: %s", options.record, strerror(errno));
}

static void start_operation(struct connection *connection, long count)
{
    long cost = one_sends ? options.connections : 1;
    connection->to_send += count;
    started += count;
    in_flight += count * cost;
    connection->in_flight += count;
    send_requests(connection);
}

static void receive(struct connection *connection, double deadline)
{
    ssize_t size = recv(connection->fd, scratch, CHUNK, MSG_DONTWAIT);
    if (size < 0 && errno == EAGAIN) return;
    if (size < 0) fail("recv: %s", strerror(errno));
    if (!size) fail("connection %d ended after %ld replies", connection->number, connection->received);
    long count = (options.record ? record_replies : count_replies)(connection, scratch, size);
    if (count > (one_sends ? in_flight : connection->in_flight))
        fail("a reply that nobody asked for on connection %d", connection->number);
    in_flight -= count;
    connection->in_flight -= count;
    if (one_sends) {
        if (in_flight) return;
        operations++;
        connection = connections;
        count = 1;
    } else {
        operations += count;
    }
    if (started + count > options.max_operations || now() >= deadline || !count) return;
    wait_a_while();
    start_operation(connection, count);
}

static int wait_for_events(struct epoll_event *events)
{
    double patience = now() + SILENCE_MS / 1000;
    for (;;) {
        int count = epoll_wait(epoll_fd, events, EVENTS, options.sleep ? SILENCE_MS : 0);
        if (count < 0) fail("epoll_wait: %s", strerror(errno));
        if (count) return count;
        if (options.sleep || now() > patience)
            fail("no reply for %d seconds, with %ld missing", SILENCE_MS / 1000, in_flight);
    }
}

static void wait_for_replies(double deadline)
{
    struct epoll_event events[EVENTS];
    while (in_flight) {
        int count = wait_for_events(events);
        for (int i = 0; i < count; i++) {
            struct connection *connection = events[i].data.ptr;
            if (events[i].events & EPOLLOUT) send_requests(connection);
            if (events[i].events & ~(uint32_t)EPOLLOUT) receive(connection, deadline);
        }
    }
}

/* See that nothing has come that nobody asked for. */
static void check_silence(void)
{
    for (int i = 0; i < options.connections + options.more; i++)
        if (connections[i].opened && recv(connections[i].fd, scratch, CHUNK, MSG_DONTWAIT) > 0)
            fail("bytes that nobody asked for on connection %d", i);
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
    double took = now() - start;
    check_silence();
    return took;
}

static void open_connections(int first, int count)
{
    for (int i = first; i < first + count; i++) {
        struct connection *connection = &connections[i];
        connection->number = i;
        connection->opened = 1;
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
    double took = now() - start;
    check_silence();
    return took;
}

static void parse(int count, char **words)
{
    static const struct option names[] = {
        { "port", 1, 0, 'p' }, { "fd", 1, 0, 'f' }, { "connections", 1, 0, 'c' }, { "more", 1, 0, 'm' },
        { "window", 1, 0, 'w' }, { "seconds", 1, 0, 's' }, { "warmup", 1, 0, 'u' }, { "max-operations", 1, 0, 'o' },
        { "handshake", 1, 0, 'h' }, { "accept", 1, 0, 'a' }, { "requests", 1, 0, 'r' }, { "replies", 1, 0, 'e' },
        { "record", 1, 0, 'd' }, { "key-offset", 1, 0, 'k' }, { "sleep", 0, 0, 'l' },
        { "pause", 1, 0, 't' }, { 0 } };
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
        case 'r': options.requests = read_frames(optarg, &options.request_count); break;
        case 'e': options.replies = read_frames(optarg, &options.reply_count); break;
        case 'd': options.record = optarg; break;
        case 'k': options.key_offset = atoi(optarg); break;
        case 'l': options.sleep = 1; break;
        case 't': options.pause = atof(optarg); break;
        default: fail("unknown option");
        }
    }
    if (optind + 1 != count || !options.request_count || !options.reply_count == !options.record)
        fail("a mode, --requests, and --replies or --record are needed");
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
    build_cycle();
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (!handshakes) open_connections(0, options.connections);
    work(options.warmup);
    say("ready");
    double seconds = idle ? grow() : work(options.seconds);
    if (options.record) write_record();
    say("done %ld %.6f", operations, seconds);
    return 0;
}
