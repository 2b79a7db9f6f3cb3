/* Frames in C: what _pycodec specifies, a whole chunk in one call.
 *
 * Owns the bytes of frames and the assembly of messages from them; knows no state of a connection,
 * no stream and no clock. RFC 6455 sections 5.2 to 5.6 and 8.1. Where the two codecs differ, this
 * one is wrong: tests/sansio/test_speedups.py compares them.
 *
 * There is no state but that of the module and of each Decoder, so each interpreter has its own.
 * A Decoder is not meant for several threads at once; the module leaves the GIL on.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>
#include <structmember.h>

#define OP_TEXT 1
#define OP_BINARY 2
#define OP_CLOSE 8
#define OP_PING 9
#define OP_PONG 10
#define MAX_CONTROL_SIZE 125
#define MAX_CONTROL_FRAMES 1024 /* of one call that has a budget */

#define PROTOCOL_ERROR 1002
#define INVALID_DATA 1007
#define MESSAGE_TOO_BIG 1009

#define NO_LIMIT (-1)

/* What is reserved for a message before its bytes have come, at the most: a header can claim more. */
#define RESERVE_SIZE (256 * 1024)

/* State of the module: the classes of the events. */

typedef struct {
    PyObject *fragment;
    PyObject *close;
    PyObject *failure;
    PyObject *ping;
    PyObject *pong;
    PyObject *no_status_rcvd;
    PyObject *payload_too_big;
    PyObject *protocol_error;
    PyObject *decode;   /* "decode" */
    PyObject *fin;      /* ("fin",) */
    PyObject *queue;    /* the types that have no name in the module */
    PyObject *messages;
    PyObject *next;
} State;

static struct PyModuleDef module_def;

/* Masking (section 5.3). */

static uint64_t
repeat_key(const unsigned char key[4])
{
    unsigned char twice[8];
    uint64_t word;
    memcpy(twice, key, 4);
    memcpy(twice + 4, key, 4);
    memcpy(&word, twice, 8);
    return word;
}

/* Masks `size` bytes, and gives the bits that are set in any of the results: 0x80 says not ASCII. */
static unsigned char
mask_into(unsigned char *to, const unsigned char *from, Py_ssize_t size, const unsigned char key[4])
{
    const uint64_t word = repeat_key(key);
    const Py_ssize_t words = size / 8;
    uint64_t bits = 0;
    unsigned char any = 0;
    for (Py_ssize_t i = 0; i < words; i++) {
        uint64_t part;
        memcpy(&part, from + 8 * i, 8);
        part ^= word;
        bits |= part;
        memcpy(to + 8 * i, &part, 8);
    }
    for (Py_ssize_t i = 8 * words; i < size; i++) {
        to[i] = from[i] ^ key[i & 3];
        any |= to[i];
    }
    return any | ((bits & 0x8080808080808080u) ? 0x80 : 0);
}

static int
check_key(const Py_buffer *key)
{
    if (key->len == 4) {
        return 0;
    }
    PyErr_Format(PyExc_ValueError, "masking key of %zd bytes, expected 4 bytes", key->len);
    return -1;
}

/* A memoryview may have gaps or several dimensions: its bytes are copied then. A str gives its UTF-8,
   without a copy where that is how Python keeps it. */
static int
get_payload(PyObject *object, Py_buffer *view)
{
    if (PyUnicode_Check(object)) {
        if (PyUnicode_IS_COMPACT_ASCII(object)) {
            return PyBuffer_FillInfo(view, object, PyUnicode_DATA(object),
                                     PyUnicode_GET_LENGTH(object), 1, PyBUF_SIMPLE);
        }
        PyObject *encoded = PyUnicode_AsUTF8String(object);
        if (encoded == NULL) {
            return -1;
        }
        int got = PyObject_GetBuffer(encoded, view, PyBUF_SIMPLE);
        Py_DECREF(encoded); /* the view holds it */
        return got;
    }
    int result = PyObject_GetBuffer(object, view, PyBUF_SIMPLE);
    if (result == 0 || !PyMemoryView_Check(object) || !PyErr_ExceptionMatches(PyExc_BufferError)) {
        return result;
    }
    PyErr_Clear();
    PyObject *copy = PyObject_CallMethod(object, "tobytes", NULL);
    if (copy == NULL) {
        return -1;
    }
    result = PyObject_GetBuffer(copy, view, PyBUF_SIMPLE);
    Py_DECREF(copy); /* the view holds it */
    return result;
}

PyDoc_STRVAR(apply_mask_doc,
"apply_mask(data, masking_key)\n--\n\n"
"Mask or unmask `data` with a key of 4 bytes (RFC 6455 section 5.3).");

static PyObject *
apply_mask(PyObject *module, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"data", "masking_key", NULL};
    PyObject *object, *result = NULL;
    Py_buffer data, key;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "Oy*:apply_mask", names, &object, &key)) {
        return NULL;
    }
    if (PyUnicode_Check(object)) {
        PyErr_SetString(PyExc_TypeError, "a bytes-like object is required, not 'str'");
    } else if (check_key(&key) == 0 && get_payload(object, &data) == 0) {
        result = PyBytes_FromStringAndSize(NULL, data.len);
        if (result != NULL) {
            mask_into((unsigned char *)PyBytes_AS_STRING(result), data.buf, data.len, key.buf);
        }
        PyBuffer_Release(&data);
    }
    PyBuffer_Release(&key);
    return result;
}

/* Encoding (section 5.2). */

static Py_ssize_t
write_header(unsigned char *to, int first, int masked, Py_ssize_t size)
{
    Py_ssize_t length = 2;
    to[0] = (unsigned char)first;
    if (size < 126) {
        to[1] = (unsigned char)size;
    } else if (size < 0x10000) {
        to[1] = 126;
        length = 4;
    } else {
        to[1] = 127;
        length = 10;
    }
    uint64_t rest = (uint64_t)size;
    for (Py_ssize_t i = length - 1; i >= 2; i--, rest >>= 8) {
        to[i] = (unsigned char)rest;
    }
    if (masked) {
        to[1] |= 0x80;
    }
    return length;
}

static PyObject *
build_frame(int first, const Py_buffer *payload, const unsigned char *key)
{
    unsigned char header[14];
    Py_ssize_t length = write_header(header, first, key != NULL, payload->len);
    if (key != NULL) {
        memcpy(header + length, key, 4);
        length += 4;
    }
    if (payload->len > PY_SSIZE_T_MAX - (Py_ssize_t)sizeof(header)) {
        return PyErr_NoMemory();
    }
    PyObject *frame = PyBytes_FromStringAndSize(NULL, length + payload->len);
    if (frame == NULL) {
        return NULL;
    }
    unsigned char *to = (unsigned char *)PyBytes_AS_STRING(frame);
    memcpy(to, header, length);
    if (key != NULL) {
        mask_into(to + length, payload->buf, payload->len, key);
    } else if (payload->len) {
        memcpy(to + length, payload->buf, payload->len);
    }
    return frame;
}

typedef struct {
    int fin;
    int rsv1;
    PyObject *masking_key;
} FrameOptions;

static int
parse_frame_options(FrameOptions *options, PyObject *const *values, PyObject *names)
{
    for (Py_ssize_t i = 0; names != NULL && i < PyTuple_GET_SIZE(names); i++) {
        PyObject *name = PyTuple_GET_ITEM(names, i);
        if (PyUnicode_CompareWithASCIIString(name, "fin") == 0) {
            options->fin = PyObject_IsTrue(values[i]);
        } else if (PyUnicode_CompareWithASCIIString(name, "rsv1") == 0) {
            options->rsv1 = PyObject_IsTrue(values[i]);
        } else if (PyUnicode_CompareWithASCIIString(name, "masking_key") == 0) {
            options->masking_key = values[i];
        } else {
            PyErr_Format(PyExc_TypeError,
                         "encode_frame() got an unexpected keyword argument '%U'", name);
            return -1;
        }
    }
    return options->fin < 0 || options->rsv1 < 0 ? -1 : 0;
}

PyDoc_STRVAR(encode_frame_doc,
"encode_frame(opcode, payload, *, fin=True, rsv1=False, masking_key=None)\n--\n\n"
"Encode one frame (RFC 6455 section 5.2).");

static PyObject *
encode_frame(PyObject *module, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    FrameOptions options = {1, 0, Py_None};
    Py_buffer payload, key;
    if (count != 2) {
        PyErr_Format(PyExc_TypeError, "encode_frame() takes 2 positional arguments, not %zd", count);
        return NULL;
    }
    long opcode = PyLong_AsLong(args[0]);
    if ((opcode == -1 && PyErr_Occurred()) || parse_frame_options(&options, args + 2, names) < 0) {
        return NULL;
    }
    int first = (int)(opcode & 0xFF) | (options.fin ? 0x80 : 0) | (options.rsv1 ? 0x40 : 0);
    if (get_payload(args[1], &payload) < 0) {
        return NULL;
    }
    PyObject *frame = NULL;
    if (options.masking_key == Py_None) {
        frame = build_frame(first, &payload, NULL);
    } else if (PyObject_GetBuffer(options.masking_key, &key, PyBUF_SIMPLE) == 0) {
        if (check_key(&key) == 0) {
            frame = build_frame(first, &payload, key.buf);
        }
        PyBuffer_Release(&key);
    }
    PyBuffer_Release(&payload);
    return frame;
}

/* UTF-8, checked as it comes (section 8.1). */

typedef struct {
    int need;           /* continuation bytes still to come of the code point in progress */
    int seen;           /* bytes that have come of it */
    unsigned char low;  /* what the next one may be */
    unsigned char high;
} Utf8;

/* Begins a code point (Unicode, table 3-7); says whether `byte` may. */
static int
utf8_begin(Utf8 *utf8, unsigned char byte)
{
    utf8->low = 0x80;
    utf8->high = 0xBF;
    if (byte >= 0xC2 && byte <= 0xDF) {
        utf8->need = 1;
    } else if (byte >= 0xE0 && byte <= 0xEF) {
        utf8->need = 2;
        if (byte == 0xE0) {
            utf8->low = 0xA0;
        } else if (byte == 0xED) {
            utf8->high = 0x9F;
        }
    } else if (byte >= 0xF0 && byte <= 0xF4) {
        utf8->need = 3;
        if (byte == 0xF0) {
            utf8->low = 0x90;
        } else if (byte == 0xF4) {
            utf8->high = 0x8F;
        }
    } else {
        return 0;
    }
    utf8->seen = 1;
    return 1;
}

/* Takes the next bytes; says whether they are UTF-8 so far. */
static int
utf8_take(Utf8 *utf8, const unsigned char *data, Py_ssize_t size)
{
    Py_ssize_t i = 0;
    while (i < size) {
        if (utf8->need) {
            if (data[i] < utf8->low || data[i] > utf8->high) {
                return 0;
            }
            utf8->low = 0x80;
            utf8->high = 0xBF;
            utf8->need--;
            utf8->seen = utf8->need ? utf8->seen + 1 : 0;
            i++;
            continue;
        }
        while (size - i >= 8) {
            uint64_t word;
            memcpy(&word, data + i, 8);
            if (word & 0x8080808080808080u) {
                break;
            }
            i += 8;
        }
        while (i < size && data[i] < 0x80) {
            i++;
        }
        if (i < size && !utf8_begin(utf8, data[i++])) {
            return 0;
        }
    }
    return 1;
}

#include "_queue.h"

/* The decoder. */

typedef struct {
    PyObject_HEAD
    State *state;
    Queue *queue; /* what was decoded, where its owner puts it there, or take() did */
    char masked;
    char fragments;
    char pending;
    char finished;
    Py_ssize_t plain_size; /* of what the last call gave, if that was whole messages alone, or -1 */
    long long message_count; /* messages that were complete, in all */
    long long payload_size;  /* their bytes */
    Py_ssize_t max_size;
    Py_ssize_t max_fragment_size;
    PyObject *inflate;
    /* What has come and is not decoded yet, and its owner; NULL: it is lent for this call. */
    const unsigned char *bytes;
    Py_ssize_t size;
    Py_ssize_t position;
    PyObject *data;
    /* The message in progress; opcode 0: none. The buffer has room for more than has come. */
    int opcode;
    char compressed;
    PyObject *message;
    Py_ssize_t message_length;
    Py_ssize_t message_size; /* of all its fragments, those that were given included */
    Utf8 utf8;
    /* The data frame in progress. */
    char in_frame;
    char frame_fin;
    Py_ssize_t frame_size;
    int64_t remaining;
    unsigned char key[4];
} Decoder;

typedef struct {
    PyObject *events;
    Py_ssize_t max_bytes;
    Py_ssize_t max_messages;
    Py_ssize_t bytes;
    Py_ssize_t messages;
    char fragments; /* whether some of them are fragments */
} Batch;

/* What a step of decoding comes to. */
typedef enum { FAILED = -1, MORE = 0, DONE = 1 } Step;

static void
forget_chunk(Decoder *self)
{
    self->bytes = NULL;
    self->size = 0;
    self->position = 0;
    Py_CLEAR(self->data);
}

static void
finish(Decoder *self)
{
    self->finished = 1;
    self->message_length = 0;
    forget_chunk(self);
    Py_CLEAR(self->message);
}

static int
append_new(PyObject *list, PyObject *item)
{
    if (item == NULL) {
        return -1;
    }
    int result = PyList_Append(list, item);
    Py_DECREF(item);
    return result;
}

/* Gives the Failure; `reason` is stolen. Nothing comes after it, so the step is DONE. */
static Step
fail_with(Decoder *self, PyObject *events, int code, PyObject *reason)
{
    finish(self);
    if (reason == NULL) {
        return FAILED;
    }
    PyObject *event = PyObject_CallFunction(self->state->failure, "iN", code, reason);
    return append_new(events, event) < 0 ? FAILED : DONE;
}

static Step
fail(Decoder *self, PyObject *events, const char *reason)
{
    return fail_with(self, events, PROTOCOL_ERROR, PyUnicode_FromString(reason));
}

static Step
fail_text(Decoder *self, PyObject *events, const char *where)
{
    PyObject *reason = PyUnicode_FromFormat("invalid UTF-8 in %s", where);
    return fail_with(self, events, INVALID_DATA, reason);
}

/* Headers (section 5.2). */

static const char *
find_fault(const Decoder *self, int first, int opcode, int masked)
{
    if (first & 0x30) {
        return "reserved bit RSV2 or RSV3 is set";
    }
    if (first & 0x40) {
        if (self->inflate == NULL) {
            return "reserved bit RSV1 is set, and no extension uses it";
        }
        if (opcode != OP_TEXT && opcode != OP_BINARY) {
            return "reserved bit RSV1 is set on a frame that does not begin a message";
        }
    }
    if (opcode > OP_PONG || (opcode > OP_BINARY && opcode < OP_CLOSE)) {
        return NULL; /* told with its number */
    }
    if (masked != self->masked) {
        return self->masked ? "frame of a client is not masked" : "frame of a server is masked";
    }
    if (opcode == 0 && !self->opcode) {
        return "continuation without a message to continue";
    }
    if (opcode != 0 && opcode < OP_CLOSE && self->opcode) {
        return "new message before the end of the last";
    }
    return "";
}

static Step
check_start(Decoder *self, PyObject *events, int first, int second)
{
    int opcode = first & 0x0F;
    const char *fault = find_fault(self, first, opcode, second >> 7);
    if (fault == NULL) {
        PyObject *reason = PyUnicode_FromFormat("unknown opcode %d", opcode);
        return fail_with(self, events, PROTOCOL_ERROR, reason);
    }
    if (*fault) {
        return fail(self, events, fault);
    }
    if (opcode >= OP_CLOSE) {
        if (!(first & 0x80)) {
            return fail(self, events, "fragmented control frame");
        }
        if ((second & 0x7F) > MAX_CONTROL_SIZE) {
            return fail(self, events, "control frame over the limit of 125 bytes");
        }
    }
    return MORE;
}

static Step
check_size(Decoder *self, PyObject *events, int64_t size, int first)
{
    /* What a compressed frame will inflate to is not known yet: bounded while inflating. */
    if ((first & 0x40) || (!(first & 0x0F) && self->compressed)) {
        return MORE;
    }
    PyObject *reason;
    if (self->max_fragment_size != NO_LIMIT && size > self->max_fragment_size) {
        reason = PyUnicode_FromFormat("fragment of %lld bytes exceeds the limit of %zd bytes",
                                      (long long)size, self->max_fragment_size);
    } else if (self->max_size != NO_LIMIT && size > self->max_size - self->message_size) {
        reason = PyUnicode_FromFormat("message of %llu bytes exceeds the limit of %zd bytes",
                                      (unsigned long long)size + self->message_size, self->max_size);
    } else {
        return MORE;
    }
    return fail_with(self, events, MESSAGE_TOO_BIG, reason);
}

/* Reads the length behind the first two bytes. MORE: it is there, or has failed (`finished`). */
static Step
read_length(Decoder *self, PyObject *events, const unsigned char *data, Py_ssize_t available,
            int second, uint64_t *size, int *width)
{
    *size = second & 0x7F;
    *width = *size == 126 ? 2 : *size == 127 ? 8 : 0;
    if (*width == 0) {
        return MORE;
    }
    if (available < *width) {
        return DONE;
    }
    *size = 0;
    for (int i = 0; i < *width; i++) {
        *size = (*size << 8) | data[i];
    }
    PyObject *reason;
    if (*size >> 63) {
        reason = PyUnicode_FromFormat("length %llu has its highest bit set",
                                      (unsigned long long)*size);
    } else if (*size < (*width == 2 ? 126u : 0x10000u)) {
        reason = PyUnicode_FromFormat("length %llu is not encoded in the fewest bytes",
                                      (unsigned long long)*size);
    } else {
        return MORE;
    }
    return fail_with(self, events, PROTOCOL_ERROR, reason);
}

/* Control frames (section 5.5). */

static Step
take_close(Decoder *self, PyObject *events, const unsigned char *payload, Py_ssize_t size)
{
    State *state = self->state;
    if (size == 0) {
        finish(self);
        PyObject *event = PyObject_CallOneArg(state->close, state->no_status_rcvd);
        return append_new(events, event) < 0 ? FAILED : DONE;
    }
    if (size == 1) {
        return fail(self, events, "Close frame of 1 byte, expected none or at least 2 bytes");
    }
    int code = payload[0] << 8 | payload[1];
    int valid = (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014)
                || (code >= 3000 && code <= 4999);
    if (!valid) {
        PyObject *reason = PyUnicode_FromFormat("invalid close code %d", code);
        return fail_with(self, events, PROTOCOL_ERROR, reason);
    }
    PyObject *reason = PyUnicode_DecodeUTF8((const char *)payload + 2, size - 2, NULL);
    if (reason == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) {
            return FAILED;
        }
        PyErr_Clear();
        return fail_text(self, events, "close reason");
    }
    finish(self);
    PyObject *event = PyObject_CallFunction(state->close, "iN", code, reason);
    return append_new(events, event) < 0 ? FAILED : DONE;
}

static Step
take_control(Decoder *self, PyObject *events, int opcode, const unsigned char *from,
             Py_ssize_t size, const unsigned char *key)
{
    unsigned char payload[MAX_CONTROL_SIZE];
    if (key != NULL) {
        mask_into(payload, from, size, key);
    } else {
        memcpy(payload, from, size);
    }
    self->position = (from - self->bytes) + size;
    if (opcode == OP_CLOSE) {
        return take_close(self, events, payload, size);
    }
    PyObject *kind = opcode == OP_PING ? self->state->ping : self->state->pong;
    PyObject *event = PyObject_CallFunction(kind, "y#", (char *)payload, size);
    return append_new(events, event) < 0 ? FAILED : MORE;
}

/* Reads a header, and the whole frame if it is a control frame. DONE: nothing more to decode now. */
static Step
take_header(Decoder *self, PyObject *events)
{
    const unsigned char *data = self->bytes + self->position;
    Py_ssize_t available = self->size - self->position;
    if (available < 2) {
        return DONE;
    }
    int first = data[0], second = data[1], opcode = first & 0x0F, width;
    uint64_t size;
    Step step = check_start(self, events, first, second);
    if (step == MORE) {
        step = read_length(self, events, data + 2, available - 2, second, &size, &width);
    }
    if (step == MORE && opcode < OP_CLOSE) {
        step = check_size(self, events, (int64_t)size, first);
    }
    if (step != MORE) {
        return step;
    }
    Py_ssize_t length = 2 + width;
    const unsigned char *key = NULL;
    if (self->masked) {
        key = data + length;
        length += 4;
    }
    if (available < length) {
        return DONE;
    }
    if (opcode >= OP_CLOSE) {
        if (available - length < (Py_ssize_t)size) {
            return DONE;
        }
        return take_control(self, events, opcode, data + length, (Py_ssize_t)size, key);
    }
    if (opcode) {
        self->opcode = opcode;
        self->compressed = (first & 0x40) != 0;
    }
    self->in_frame = 1;
    self->frame_fin = first >> 7;
    self->frame_size = 0;
    self->remaining = (int64_t)size;
    if (key != NULL) {
        memcpy(self->key, key, 4);
    }
    self->position += length;
    return MORE;
}

/* Messages (sections 5.4 and 5.6). */

static void
rotate_key(Decoder *self, Py_ssize_t size)
{
    unsigned char key[4];
    for (int i = 0; i < 4; i++) {
        key[i] = self->key[(size + i) & 3];
    }
    memcpy(self->key, key, 4);
}

/* Makes room for `size` bytes more, and for some of those that the frame is still to bring. */
static unsigned char *
reserve(Decoder *self, Py_ssize_t size)
{
    Py_ssize_t length = self->message_length;
    Py_ssize_t room = self->message == NULL ? 0 : PyBytes_GET_SIZE(self->message);
    if (size > PY_SSIZE_T_MAX / 4 - length) {
        PyErr_NoMemory();
        return NULL;
    }
    if (self->message == NULL || room - length < size) {
        Py_ssize_t wanted = length + size;
        Py_ssize_t spare = wanted > RESERVE_SIZE ? wanted : RESERVE_SIZE;
        wanted += self->remaining < spare ? (Py_ssize_t)self->remaining : spare;
        if (self->message == NULL) {
            self->message = PyBytes_FromStringAndSize(NULL, wanted);
        } else if (_PyBytes_Resize(&self->message, wanted) < 0) {
            self->message_length = 0;
        }
        if (self->message == NULL) {
            return NULL;
        }
    }
    self->message_length += size;
    return (unsigned char *)PyBytes_AS_STRING(self->message) + length;
}

/* Appends a piece that is in the clear, or masked if there is a key; says if it may be Text. */
static int
append_piece(Decoder *self, const unsigned char *from, Py_ssize_t size, const unsigned char *key)
{
    if (size == 0) {
        return 1;
    }
    unsigned char *to = reserve(self, size);
    if (to == NULL) {
        return -1;
    }
    if (key != NULL) {
        mask_into(to, from, size, key);
    } else {
        memcpy(to, from, size);
    }
    return self->opcode != OP_TEXT || utf8_take(&self->utf8, to, size);
}

/* Gives the first `length` bytes of the buffer, and keeps the rest. */
static PyObject *
cut_message(Decoder *self, Py_ssize_t length)
{
    const char *start = self->message == NULL ? "" : PyBytes_AS_STRING(self->message);
    PyObject *result;
    if (self->opcode == OP_TEXT) {
        result = PyUnicode_DecodeUTF8(start, length, NULL);
    } else if (length != self->message_length || self->message == NULL) {
        result = PyBytes_FromStringAndSize(start, length);
    } else {
        if (PyBytes_GET_SIZE(self->message) != length
            && _PyBytes_Resize(&self->message, length) < 0) {
            self->message_length = 0;
            return NULL;
        }
        result = self->message;
        self->message = NULL;
        self->message_length = 0;
        return result;
    }
    if (result != NULL) {
        self->message_length -= length;
        if (self->message_length) {
            memmove(PyBytes_AS_STRING(self->message), start + length, self->message_length);
        } else {
            Py_CLEAR(self->message);
        }
    }
    return result;
}

static PyObject *
make_fragment(Decoder *self, int fin)
{
    /* A code point that is cut by the frames goes with the fragment that completes it. */
    PyObject *data = cut_message(self, self->message_length - self->utf8.seen);
    if (data == NULL) {
        return NULL;
    }
    return PyObject_CallFunction(self->state->fragment, "NO", data, fin ? Py_True : Py_False);
}

static void
end_message(Decoder *self)
{
    self->message_count++;
    self->payload_size += self->message_size;
    self->opcode = 0;
    self->message_size = 0;
    memset(&self->utf8, 0, sizeof(self->utf8));
    Py_CLEAR(self->message);
    self->message_length = 0;
}

/* Gives a message that is one piece; NULL without an error: it is no UTF-8. */
static PyObject *
make_message(Decoder *self, const unsigned char *from, Py_ssize_t size, const unsigned char *key)
{
    PyObject *message;
    if (self->opcode == OP_BINARY) {
        message = PyBytes_FromStringAndSize(key == NULL ? (const char *)from : NULL, size);
        if (message != NULL && key != NULL) {
            mask_into((unsigned char *)PyBytes_AS_STRING(message), from, size, key);
        }
        return message;
    }
    if (key == NULL || size == 0) {
        message = PyUnicode_DecodeUTF8((const char *)from, size, NULL);
    } else {
        /* Most text is ASCII, which can be unmasked in its place. */
        message = PyUnicode_New(size, 127);
        if (message == NULL) {
            return NULL;
        }
        unsigned char *to = PyUnicode_1BYTE_DATA(message);
        if (mask_into(to, from, size, key) & 0x80) {
            PyObject *decoded = PyUnicode_DecodeUTF8((const char *)to, size, NULL);
            memset(to, 0, size); /* it must be ASCII, even if only to be dropped */
            Py_DECREF(message);
            message = decoded;
        }
    }
    if (message == NULL && PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) {
        PyErr_Clear();
    }
    return message;
}

/* Inflates a piece. NULL without an error: it became a Failure. */
static PyObject *
inflate_piece(Decoder *self, PyObject *events, PyObject *piece, int fin)
{
    State *state = self->state;
    const char *what = "message";
    Py_ssize_t limit = self->max_size, room = 0;
    if (limit != NO_LIMIT) {
        room = limit - self->message_size;
    }
    if (self->max_fragment_size != NO_LIMIT) {
        Py_ssize_t fragment_room = self->max_fragment_size - self->frame_size;
        if (limit == NO_LIMIT || fragment_room < room) {
            what = "fragment";
            limit = self->max_fragment_size;
            room = fragment_room;
        }
    }
    PyObject *bound = limit == NO_LIMIT ? Py_NewRef(Py_None) : PyLong_FromSsize_t(room);
    if (bound == NULL) {
        return NULL;
    }
    PyObject *args[] = {self->inflate, piece, bound, fin ? Py_True : Py_False};
    PyObject *result = PyObject_VectorcallMethod(state->decode, args, 3, state->fin);
    Py_DECREF(bound);
    if (result != NULL && !PyBytes_Check(result)) {
        Py_SETREF(result, PyBytes_FromObject(result));
    }
    if (result != NULL || !PyErr_ExceptionMatches(state->payload_too_big)) {
        return result;
    }
    PyErr_Clear();
    fail_with(self, events, MESSAGE_TOO_BIG,
              PyUnicode_FromFormat("%s exceeds the limit of %zd bytes after decompression", what,
                                   limit));
    return NULL;
}

/* Adds a message or fragment to the events, and counts it. */
static Step
give(Batch *batch, PyObject *message, Py_ssize_t size)
{
    if (append_new(batch->events, message) < 0) {
        return FAILED;
    }
    batch->messages++;
    batch->bytes += size;
    return (batch->max_messages != NO_LIMIT && batch->messages >= batch->max_messages)
                   || (batch->max_bytes != NO_LIMIT && batch->bytes >= batch->max_bytes)
               ? DONE
               : MORE;
}

static Py_ssize_t
data_length(PyObject *data)
{
    return PyUnicode_Check(data) ? PyUnicode_GET_LENGTH(data) : PyBytes_GET_SIZE(data);
}

static Step
give_fragment(Decoder *self, Batch *batch, int fin, int counts)
{
    PyObject *fragment = make_fragment(self, fin);
    if (fragment == NULL) {
        return FAILED;
    }
    batch->fragments = 1;
    PyObject *data = PyObject_GetAttrString(fragment, "data");
    if (data == NULL) {
        Py_DECREF(fragment);
        return FAILED;
    }
    Py_ssize_t size = data_length(data);
    Py_DECREF(data);
    if (!counts) {
        return append_new(batch->events, fragment) < 0 ? FAILED : MORE;
    }
    return give(batch, fragment, size);
}

/* Ends a message with its last piece. */
static Step
complete(Decoder *self, Batch *batch, const unsigned char *from, Py_ssize_t size,
         const unsigned char *key)
{
    if (!self->fragments && self->message_length == 0) {
        PyObject *message = make_message(self, from, size, key);
        if (message == NULL) {
            return PyErr_Occurred() ? FAILED : fail_text(self, batch->events, "text");
        }
        end_message(self);
        return give(batch, message, data_length(message));
    }
    int valid = append_piece(self, from, size, key);
    if (valid < 0) {
        return FAILED;
    }
    if (!valid || self->utf8.need) {
        return fail_text(self, batch->events, "text");
    }
    Step step;
    if (self->fragments) {
        step = give_fragment(self, batch, 1, 1);
        self->fragments = 0;
    } else {
        PyObject *message = cut_message(self, self->message_length);
        step = message == NULL ? FAILED : give(batch, message, data_length(message));
    }
    end_message(self);
    return step;
}

/* Takes a piece of the frame in progress, in the clear or masked. */
static Step
take_piece(Decoder *self, Batch *batch, const unsigned char *from, Py_ssize_t size,
           const unsigned char *key)
{
    int frame_ends = self->remaining == 0;
    self->frame_size += size;
    self->message_size += size;
    if (frame_ends) {
        self->in_frame = 0;
        if (self->frame_fin) {
            return complete(self, batch, from, size, key);
        }
    }
    int valid = append_piece(self, from, size, key);
    if (valid < 0) {
        return FAILED;
    }
    if (!valid) {
        return fail_text(self, batch->events, "text");
    }
    if (!frame_ends) {
        return DONE;
    }
    return self->fragments ? give_fragment(self, batch, 0, 1) : MORE;
}

/* Takes what has come of the data frame. DONE: nothing more to decode now. */
static Step
take_payload(Decoder *self, Batch *batch)
{
    const unsigned char *from = self->bytes + self->position;
    Py_ssize_t size = self->size - self->position;
    if (size > self->remaining) {
        size = (Py_ssize_t)self->remaining;
    }
    self->position += size;
    self->remaining -= size;
    if (!self->compressed) {
        Step step = take_piece(self, batch, from, size, self->masked ? self->key : NULL);
        rotate_key(self, size);
        return step;
    }
    PyObject *piece = PyBytes_FromStringAndSize(self->masked ? NULL : (const char *)from, size);
    if (piece == NULL) {
        return FAILED;
    }
    if (self->masked) {
        mask_into((unsigned char *)PyBytes_AS_STRING(piece), from, size, self->key);
        rotate_key(self, size);
    }
    PyObject *data =
        inflate_piece(self, batch->events, piece, self->frame_fin && self->remaining == 0);
    Py_DECREF(piece);
    if (data == NULL) {
        return PyErr_Occurred() ? FAILED : DONE;
    }
    Step step = take_piece(self, batch, (unsigned char *)PyBytes_AS_STRING(data),
                           PyBytes_GET_SIZE(data), NULL);
    Py_DECREF(data);
    return step;
}

static Step
decode(Decoder *self, Batch *batch)
{
    if (self->fragments && !self->in_frame && self->message_length > self->utf8.seen
        && give_fragment(self, batch, 0, 0) == FAILED) {
        return FAILED;
    }
    int has_budget = batch->max_bytes != NO_LIMIT || batch->max_messages != NO_LIMIT;
    for (;;) {
        Py_ssize_t given = batch->messages;
        Step step = self->in_frame ? take_payload(self, batch) : take_header(self, batch->events);
        if (step == MORE && !self->finished) {
            Py_ssize_t control_frames = PyList_GET_SIZE(batch->events) - batch->messages;
            if (!has_budget || control_frames < MAX_CONTROL_FRAMES) {
                continue;
            }
            self->pending = self->position < self->size;
            return DONE;
        }
        if (step == DONE && batch->messages != given && !self->finished) {
            self->pending = self->position < self->size;
        }
        return step;
    }
}

/* An extension that finds its data corrupt says so by a ProtocolError, which becomes a Failure. */
static Step
take_error(Decoder *self, PyObject *events)
{
    PyObject *type, *error, *traceback;
    if (!PyErr_ExceptionMatches(self->state->protocol_error)) {
        return FAILED;
    }
    PyErr_Fetch(&type, &error, &traceback);
    PyErr_NormalizeException(&type, &error, &traceback);
    PyObject *code = PyObject_GetAttrString(error, "code");
    PyObject *reason = PyObject_Str(error);
    long number = code == NULL ? -1 : PyLong_AsLong(code);
    Py_XDECREF(code);
    Py_XDECREF(type);
    Py_XDECREF(error);
    Py_XDECREF(traceback);
    if (PyErr_Occurred()) {
        Py_XDECREF(reason);
        return FAILED;
    }
    return fail_with(self, events, (int)number, reason);
}

/* Sets what is to be decoded: a chunk, behind what an earlier call left over. The owner of the chunk
 * is NULL where it is lent for this call alone. */
static int
take_chunk(Decoder *self, PyObject *owner, const unsigned char *chunk, Py_ssize_t size)
{
    Py_ssize_t rest = self->size - self->position;
    if (rest == 0) {
        Py_XSETREF(self->data, Py_XNewRef(owner));
        self->bytes = chunk;
        self->size = size;
        self->position = 0;
    } else if (size) {
        PyObject *joined = PyBytes_FromStringAndSize(NULL, rest + size);
        if (joined == NULL) {
            return -1;
        }
        char *to = PyBytes_AS_STRING(joined);
        memcpy(to, self->bytes + self->position, rest);
        memcpy(to + rest, chunk, size);
        Py_XSETREF(self->data, joined);
        self->bytes = (unsigned char *)to;
        self->size = rest + size;
        self->position = 0;
    }
    return 0;
}

/* Keeps what is left of the chunk for the next call. */
static int
keep_rest(Decoder *self)
{
    Py_ssize_t rest = self->size - self->position;
    if (rest == 0) {
        forget_chunk(self);
    } else if (self->data == NULL || (!self->pending && self->position)) {
        /* The chunk was lent; or it would stay for part of a header or of a control frame. */
        PyObject *data =
            PyBytes_FromStringAndSize((const char *)self->bytes + self->position, rest);
        if (data == NULL) {
            forget_chunk(self);
            return -1;
        }
        Py_XSETREF(self->data, data);
        self->bytes = (unsigned char *)PyBytes_AS_STRING(data);
        self->size = rest;
        self->position = 0;
    }
    return 0;
}

/* Taking messages out of the queue. */

/* The size of the payload of the frame that comes next, where it is a message of up to 125 bytes in
 * one frame that is here whole; else -1. */
static Py_ssize_t
short_payload_size(const Decoder *self)
{
    const unsigned char *data = self->bytes + self->position;
    Py_ssize_t available = self->size - self->position;
    if (available < 2 || (data[0] != (0x80 | OP_TEXT) && data[0] != (0x80 | OP_BINARY))) {
        return -1;
    }
    Py_ssize_t size = data[1] - (self->masked ? 128 : 0);
    int here = size >= 0 && size <= 125 && available - 2 - (self->masked ? 4 : 0) >= size;
    if (!here || (self->max_size != NO_LIMIT && size > self->max_size)
        || (self->max_fragment_size != NO_LIMIT && size > self->max_fragment_size)) {
        return -1;
    }
    return size;
}

/* Decodes such messages into the queue, until it is full but for the one that leaves next. */
static int
decode_short(Decoder *self, Py_ssize_t leaving_size)
{
    Queue *queue = self->queue;
    Py_ssize_t size;
    while (!is_full(queue->count - 1, queue->size - leaving_size, queue)
           && (size = short_payload_size(self)) >= 0) {
        const unsigned char *data = self->bytes + self->position;
        const unsigned char *key = self->masked ? data + 2 : NULL;
        Py_ssize_t start = self->masked ? 6 : 2;
        self->opcode = data[0] & 0x0F;
        PyObject *message = make_message(self, data + start, size, key);
        if (message == NULL) {
            self->opcode = 0;
            return PyErr_Occurred() ? -1 : 0; /* no UTF-8: feed() finds that too */
        }
        if (make_room(queue, 1) < 0) {
            self->opcode = 0;
            Py_DECREF(message);
            return -1;
        }
        self->message_size = size;
        end_message(self);
        self->position += start + size;
        add(queue, message);
        queue->size += data_length(message);
        Py_DECREF(message);
    }
    return 0;
}

/* Says whether to take the oldest out is all that there is to do while reading is paused: 1, or 0,
 * or -1 for an error. */
static int
replenish(Decoder *self)
{
    Queue *queue = self->queue;
    if (queue->starved) {
        return 0;
    }
    Py_ssize_t leaving_size = measure(queue, first_of(queue));
    if (leaving_size < 0) {
        return -1;
    }
    if (!is_low(queue->count - 1, queue->size - leaving_size, queue)) {
        return 1;
    }
    if (!self->pending || !queue->replenishes || self->opcode || self->in_frame
        || self->fragments) {
        return 0;
    }
    int decoded = decode_short(self, leaving_size);
    note_peaks(queue, 1, leaving_size);
    self->pending = self->position < self->size;
    if (keep_rest(self) < 0 || decoded < 0) {
        return -1;
    }
    queue->starved = !is_full(queue->count - 1, queue->size - leaving_size, queue);
    return !queue->starved;
}

/* NULL without an error: there is none that could be simply taken. */
static PyObject *
take(Decoder *self)
{
    Queue *queue = self->queue;
    if (queue->count == 0 || queue->held || queue->calls_left <= 0
        || (queue->paused && replenish(self) <= 0)) {
        return NULL;
    }
    Py_ssize_t size = measure(queue, first_of(queue));
    if (size < 0) {
        return NULL;
    }
    queue->calls_left--;
    return take_first(queue, size);
}

PyDoc_STRVAR(take_doc,
"take($self, /)\n--\n\n"
"Take the oldest message out of the queue if that is all that there is to do, or give None.");

static PyObject *
Decoder_take(Decoder *self, PyObject *Py_UNUSED(unused))
{
    PyObject *message = take(self);
    return message == NULL && !PyErr_Occurred() ? Py_NewRef(Py_None) : message;
}

/* The iterator over the messages, and what it gives for one that waits: it passes for a coroutine. */

typedef struct {
    PyObject_HEAD
    Decoder *decoder;
    PyObject *otherwise; /* gives a coroutine that waits for a message */
    PyObject *coroutine; /* the one that was needed after all */
    char begun;
} Next;

typedef struct {
    PyObject_HEAD
    Decoder *decoder;
    PyObject *otherwise;
    Next *spare; /* given again once nobody else has it: to make one takes as long as all the rest */
} Messages;

PyDoc_STRVAR(iterate_doc,
"iterate($self, otherwise, /)\n--\n\n"
"Give an asynchronous iterator over the messages that take() gives.");

static PyObject *
Decoder_iterate(Decoder *self, PyObject *otherwise)
{
    PyTypeObject *type = (PyTypeObject *)self->state->messages;
    Messages *messages = (Messages *)type->tp_alloc(type, 0);
    if (messages != NULL) {
        messages->decoder = (Decoder *)Py_NewRef(self);
        messages->otherwise = Py_NewRef(otherwise);
    }
    return (PyObject *)messages;
}

static PyObject *
Messages_aiter(PyObject *self)
{
    return Py_NewRef(self);
}

/* Whether take() gives a message, as far as can be seen without decoding. */
static int
gives(const Decoder *self)
{
    const Queue *queue = self->queue;
    return queue->count > 0 && !queue->held && queue->calls_left > 0
           && !(queue->paused && (queue->starved || queue->count - 1 <= queue->low_messages));
}

static PyObject *
Messages_anext(Messages *self)
{
    if (!gives(self->decoder)) {
        return PyObject_CallNoArgs(self->otherwise);
    }
    Next *next = self->spare;
    if (next != NULL && Py_REFCNT(next) == 1 && next->coroutine == NULL) {
        next->begun = 0;
        return Py_NewRef(next);
    }
    PyTypeObject *type = (PyTypeObject *)self->decoder->state->next;
    next = (Next *)type->tp_alloc(type, 0);
    if (next == NULL) {
        return NULL;
    }
    next->decoder = (Decoder *)Py_NewRef(self->decoder);
    next->otherwise = Py_NewRef(self->otherwise);
    Py_INCREF(next); /* before the other goes, which may run anything */
    Py_XSETREF(self->spare, next);
    return (PyObject *)next;
}

static int
Messages_traverse(Messages *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->decoder);
    Py_VISIT(self->otherwise);
    Py_VISIT(self->spare);
    return 0;
}

static int
Messages_clear(Messages *self)
{
    Py_CLEAR(self->otherwise);
    Py_CLEAR(self->spare);
    return 0;
}

static void
Messages_dealloc(Messages *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Messages_clear(self);
    Py_CLEAR(self->decoder);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

/* The message is taken only now: who drops what was given loses none. */
static PySendResult
Next_send(Next *self, PyObject *value, PyObject **result)
{
    *result = NULL;
    if (self->coroutine == NULL) {
        if (self->begun) {
            PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited coroutine");
            return PYGEN_ERROR;
        }
        self->begun = 1;
        *result = take(self->decoder);
        if (*result != NULL) {
            return PYGEN_RETURN;
        }
        /* Another task may have taken it meanwhile. */
        if (PyErr_Occurred()
            || (self->coroutine = PyObject_CallNoArgs(self->otherwise)) == NULL) {
            return PYGEN_ERROR;
        }
    }
    return PyIter_Send(self->coroutine, value, result);
}

/* As generators say it to who does not ask by the slot: under a debugger, the interpreter. */
static PyObject *
tell(PySendResult outcome, PyObject *result)
{
    if (outcome != PYGEN_RETURN) {
        return result;
    }
    PyObject *stop = PyObject_CallOneArg(PyExc_StopIteration, result);
    Py_DECREF(result);
    if (stop != NULL) {
        PyErr_SetObject(PyExc_StopIteration, stop);
        Py_DECREF(stop);
    }
    return NULL;
}

static PyObject *
Next_next(Next *self)
{
    PyObject *result;
    PySendResult outcome = Next_send(self, Py_None, &result);
    return tell(outcome, result);
}

static PyObject *
Next_send_method(Next *self, PyObject *value)
{
    PyObject *result;
    PySendResult outcome = Next_send(self, value, &result);
    return tell(outcome, result);
}

static PyObject *
Next_throw(Next *self, PyObject *args)
{
    if (self->coroutine == NULL) {
        /* What has not begun raises it at its first line: so does one that ends with that. */
        self->begun = 1;
        if ((self->coroutine = PyObject_CallNoArgs(self->otherwise)) == NULL) {
            return NULL;
        }
    }
    PyObject *throw = PyObject_GetAttrString(self->coroutine, "throw");
    PyObject *result = throw == NULL ? NULL : PyObject_CallObject(throw, args);
    Py_XDECREF(throw);
    return result;
}

static PyObject *
Next_close(Next *self, PyObject *Py_UNUSED(unused))
{
    self->begun = 1;
    return self->coroutine == NULL ? Py_NewRef(Py_None)
                                   : PyObject_CallMethod(self->coroutine, "close", NULL);
}

static int
Next_traverse(Next *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->decoder);
    Py_VISIT(self->otherwise);
    Py_VISIT(self->coroutine);
    return 0;
}

static int
Next_clear(Next *self)
{
    Py_CLEAR(self->otherwise);
    Py_CLEAR(self->coroutine);
    return 0;
}

static void
Next_dealloc(Next *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Next_clear(self);
    Py_CLEAR(self->decoder);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyType_Slot Messages_slots[] = {
    {Py_tp_doc, (void *)"The messages of a connection, one after the other."},
    {Py_tp_dealloc, (void *)Messages_dealloc},
    {Py_tp_traverse, (void *)Messages_traverse},
    {Py_tp_clear, (void *)Messages_clear},
    {Py_am_aiter, (void *)Messages_aiter},
    {Py_am_anext, (void *)Messages_anext},
    {0, NULL},
};

static PyType_Spec Messages_spec = {
    .name = "anyws.sansio._speedups.Messages",
    .basicsize = sizeof(Messages),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = Messages_slots,
};

static PyMethodDef Next_methods[] = {
    {"send", (PyCFunction)Next_send_method, METH_O, "Go on, as a coroutine does."},
    {"throw", (PyCFunction)Next_throw, METH_VARARGS, "Raise an exception in it, likewise."},
    {"close", (PyCFunction)Next_close, METH_NOARGS, "End it, likewise."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot Next_slots[] = {
    {Py_tp_doc, (void *)"The next message, to be awaited."},
    {Py_tp_dealloc, (void *)Next_dealloc},
    {Py_tp_traverse, (void *)Next_traverse},
    {Py_tp_clear, (void *)Next_clear},
    {Py_tp_methods, Next_methods},
    {Py_tp_iter, (void *)Messages_aiter},
    {Py_tp_iternext, (void *)Next_next},
    {Py_am_await, (void *)Messages_aiter},
    {Py_am_send, (void *)Next_send},
    {0, NULL},
};

static PyType_Spec Next_spec = {
    .name = "anyws.sansio._speedups.Next",
    .basicsize = sizeof(Next),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = Next_slots,
};

/* Feeding. */

static int
parse_limit(PyObject *object, Py_ssize_t *limit)
{
    *limit = NO_LIMIT;
    if (object == Py_None) {
        return 0;
    }
    *limit = PyLong_AsSsize_t(object);
    if (*limit == -1 && PyErr_Occurred()) {
        if (!PyErr_ExceptionMatches(PyExc_OverflowError)) {
            return -1;
        }
        PyErr_Clear();
        *limit = PY_SSIZE_T_MAX; /* no message is so large */
    }
    return 0;
}

static PyObject *
feed_chunk(Decoder *self, PyObject *owner, const unsigned char *chunk, Py_ssize_t size,
           Batch *batch)
{
    batch->events = PyList_New(0);
    self->plain_size = 0;
    if (batch->events == NULL || self->finished) {
        return batch->events;
    }
    if (take_chunk(self, owner, chunk, size) < 0) {
        Py_CLEAR(batch->events);
        return NULL;
    }
    self->pending = 0;
    Step step = decode(self, batch);
    if (step == FAILED) {
        step = take_error(self, batch->events);
    }
    if (keep_rest(self) < 0) {
        step = FAILED;
    }
    if (step == FAILED) {
        Py_CLEAR(batch->events);
        return NULL;
    }
    int plain = !batch->fragments && batch->messages == PyList_GET_SIZE(batch->events);
    self->plain_size = plain ? batch->bytes : -1;
    return batch->events;
}

PyDoc_STRVAR(feed_doc,
"feed($self, data, max_bytes=None, max_messages=None)\n--\n\n"
"Decode a chunk, and what an earlier call left over.");

static PyObject *
Decoder_feed(Decoder *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    PyObject *values[3] = {NULL, Py_None, Py_None};
    static const char *const parameters[3] = {"data", "max_bytes", "max_messages"};
    Batch batch = {NULL, NO_LIMIT, NO_LIMIT, 0, 0, 0};
    for (Py_ssize_t i = 0; i < count && i < 3; i++) {
        values[i] = args[i];
    }
    int wrong = count > 3;
    for (Py_ssize_t i = 0; names != NULL && i < PyTuple_GET_SIZE(names); i++) {
        int j = 0;
        while (j < 3
               && PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, i), parameters[j]) != 0) {
            j++;
        }
        if (j == 3 || j < count) { /* unknown, or given twice */
            wrong = 1;
        } else {
            values[j] = args[count + i];
        }
    }
    if (values[0] == NULL || wrong) {
        PyErr_SetString(PyExc_TypeError, "feed() takes data, max_bytes and max_messages");
        return NULL;
    }
    if (parse_limit(values[1], &batch.max_bytes) < 0
        || parse_limit(values[2], &batch.max_messages) < 0) {
        return NULL;
    }
    if (PyBytes_CheckExact(values[0])) {
        return feed_chunk(self, values[0], (unsigned char *)PyBytes_AS_STRING(values[0]),
                          PyBytes_GET_SIZE(values[0]), &batch);
    }
    Py_buffer chunk;
    if (PyUnicode_Check(values[0])) {
        PyErr_SetString(PyExc_TypeError, "a bytes-like object is required, not 'str'");
        return NULL;
    }
    if (get_payload(values[0], &chunk) < 0) {
        return NULL;
    }
    PyObject *events = feed_chunk(self, NULL, chunk.buf, chunk.len, &batch);
    PyBuffer_Release(&chunk);
    return events;
}

PyDoc_STRVAR(keep_doc,
"keep($self, data, /)\n--\n\n"
"Keep a chunk for the next feed(), behind what an earlier one left over.");

static PyObject *
Decoder_keep(Decoder *self, PyObject *data)
{
    Py_buffer chunk;
    if (PyObject_GetBuffer(data, &chunk, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    int kept = 0;
    if (!self->finished) {
        kept = take_chunk(self, NULL, chunk.buf, chunk.len);
        self->pending = self->position < self->size;
        kept = kept < 0 ? kept : keep_rest(self);
    }
    PyBuffer_Release(&chunk);
    return kept < 0 ? NULL : Py_NewRef(Py_None);
}

static PyObject *
Decoder_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"masked", "max_size", "max_fragment_size", "inflate", "fragments",
                            NULL};
    int masked = -1, fragments = 0;
    PyObject *max_size = NULL, *max_fragment_size = Py_None, *inflate = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|$pOOOp:Decoder", names, &masked, &max_size,
                                     &max_fragment_size, &inflate, &fragments)) {
        return NULL;
    }
    if (masked < 0 || max_size == NULL) {
        PyErr_SetString(PyExc_TypeError, "Decoder() needs the arguments masked and max_size");
        return NULL;
    }
    PyObject *module = PyType_GetModuleByDef(type, &module_def);
    if (module == NULL) {
        return NULL;
    }
    Decoder *self = (Decoder *)type->tp_alloc(type, 0); /* zeroed */
    if (self == NULL) {
        return NULL;
    }
    self->state = PyModule_GetState(module); /* the type holds the module */
    self->masked = (char)masked;
    self->fragments = (char)fragments;
    self->inflate = inflate == Py_None ? NULL : Py_NewRef(inflate);
    self->queue = new_queue((PyTypeObject *)self->state->queue, self->state->fragment);
    if (self->queue == NULL || parse_limit(max_size, &self->max_size) < 0
        || parse_limit(max_fragment_size, &self->max_fragment_size) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static int
Decoder_traverse(Decoder *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->inflate);
    return 0;
}

static int
Decoder_clear(Decoder *self)
{
    Py_CLEAR(self->inflate);
    return 0;
}

static void
Decoder_dealloc(Decoder *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Decoder_clear(self);
    Py_CLEAR(self->data);
    Py_CLEAR(self->message);
    Py_CLEAR(self->queue);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyMethodDef Decoder_methods[] = {
    {"feed", (PyCFunction)(void (*)(void))Decoder_feed, METH_FASTCALL | METH_KEYWORDS, feed_doc},
    {"keep", (PyCFunction)Decoder_keep, METH_O, keep_doc},
    {"take", (PyCFunction)Decoder_take, METH_NOARGS, take_doc},
    {"iterate", (PyCFunction)Decoder_iterate, METH_O, iterate_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef Decoder_members[] = {
    {"queue", T_OBJECT_EX, offsetof(Decoder, queue), READONLY, "What take() takes from."},
    {"fragments", T_BOOL, offsetof(Decoder, fragments), 0,
     "Give the message in progress, or else the next, as Fragment events."},
    {"pending", T_BOOL, offsetof(Decoder, pending), 0,
     "Whether the last feed() stopped at its budget, with bytes left to decode."},
    {"plain_size", T_PYSSIZET, offsetof(Decoder, plain_size), READONLY,
     "Bytes of what the last feed() gave, where that was whole messages alone; -1 where not."},
    {"message_count", T_LONGLONG, offsetof(Decoder, message_count), READONLY,
     "Messages that were complete, in all."},
    {"payload_size", T_LONGLONG, offsetof(Decoder, payload_size), READONLY,
     "Bytes of their payloads."},
    {NULL, 0, 0, 0, NULL},
};

PyDoc_STRVAR(Decoder_doc,
"Decoder(*, masked, max_size, max_fragment_size=None, inflate=None, fragments=False)\n--\n\n"
"Frames in, messages and control frames out.");

static PyType_Slot Decoder_slots[] = {
    {Py_tp_doc, (void *)Decoder_doc},
    {Py_tp_new, Decoder_new},
    {Py_tp_dealloc, Decoder_dealloc},
    {Py_tp_traverse, Decoder_traverse},
    {Py_tp_clear, Decoder_clear},
    {Py_tp_methods, Decoder_methods},
    {Py_tp_members, Decoder_members},
    {0, NULL},
};

static PyType_Spec Decoder_spec = {
    .name = "anyws.sansio._speedups.Decoder",
    .basicsize = sizeof(Decoder),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = Decoder_slots,
};

/* The module. */

static int
import_names(State *state)
{
    PyObject *types = PyImport_ImportModule("anyws._types");
    PyObject *errors = types == NULL ? NULL : PyImport_ImportModule("anyws.exceptions");
    PyObject *codes = errors == NULL ? NULL : PyObject_GetAttrString(types, "CloseCode");
    int found =
        codes != NULL && (state->fragment = PyObject_GetAttrString(types, "Fragment")) != NULL
        && (state->close = PyObject_GetAttrString(types, "Close")) != NULL
        && (state->failure = PyObject_GetAttrString(types, "Failure")) != NULL
        && (state->ping = PyObject_GetAttrString(types, "Ping")) != NULL
        && (state->pong = PyObject_GetAttrString(types, "Pong")) != NULL
        && (state->no_status_rcvd = PyObject_GetAttrString(codes, "NO_STATUS_RCVD")) != NULL
        && (state->payload_too_big = PyObject_GetAttrString(errors, "PayloadTooBig")) != NULL
        && (state->protocol_error = PyObject_GetAttrString(errors, "ProtocolError")) != NULL
        && (state->decode = PyUnicode_InternFromString("decode")) != NULL
        && (state->fin = Py_BuildValue("(s)", "fin")) != NULL;
    Py_XDECREF(types);
    Py_XDECREF(errors);
    Py_XDECREF(codes);
    return found ? 0 : -1;
}

static int
module_exec(PyObject *module)
{
    State *state = PyModule_GetState(module);
    if (import_names(state) < 0
        || (state->queue = PyType_FromModuleAndSpec(module, &Queue_spec, NULL)) == NULL
        || (state->messages = PyType_FromModuleAndSpec(module, &Messages_spec, NULL)) == NULL
        || (state->next = PyType_FromModuleAndSpec(module, &Next_spec, NULL)) == NULL) {
        return -1;
    }
    PyObject *type = PyType_FromModuleAndSpec(module, &Decoder_spec, NULL);
    if (type == NULL) {
        return -1;
    }
    int result = PyModule_AddType(module, (PyTypeObject *)type);
    Py_DECREF(type);
    return result;
}

static int
module_traverse(PyObject *module, visitproc visit, void *arg)
{
    State *state = PyModule_GetState(module);
    Py_VISIT(state->fragment);
    Py_VISIT(state->close);
    Py_VISIT(state->failure);
    Py_VISIT(state->ping);
    Py_VISIT(state->pong);
    Py_VISIT(state->no_status_rcvd);
    Py_VISIT(state->payload_too_big);
    Py_VISIT(state->protocol_error);
    Py_VISIT(state->queue);
    Py_VISIT(state->messages);
    Py_VISIT(state->next);
    return 0;
}

static int
module_clear(PyObject *module)
{
    State *state = PyModule_GetState(module);
    Py_CLEAR(state->fragment);
    Py_CLEAR(state->close);
    Py_CLEAR(state->failure);
    Py_CLEAR(state->ping);
    Py_CLEAR(state->pong);
    Py_CLEAR(state->no_status_rcvd);
    Py_CLEAR(state->payload_too_big);
    Py_CLEAR(state->protocol_error);
    Py_CLEAR(state->decode);
    Py_CLEAR(state->fin);
    Py_CLEAR(state->queue);
    Py_CLEAR(state->messages);
    Py_CLEAR(state->next);
    return 0;
}

static void
module_free(void *module)
{
    module_clear(module);
}

static PyMethodDef module_methods[] = {
    {"apply_mask", (PyCFunction)(void (*)(void))apply_mask, METH_VARARGS | METH_KEYWORDS,
     apply_mask_doc},
    {"encode_frame", (PyCFunction)(void (*)(void))encode_frame, METH_FASTCALL | METH_KEYWORDS,
     encode_frame_doc},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
    {0, NULL},
};

static struct PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT,
    .m_name = "anyws.sansio._speedups",
    .m_doc = "Frames in C: what _pycodec specifies.",
    .m_size = sizeof(State),
    .m_methods = module_methods,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC
PyInit__speedups(void)
{
    return PyModuleDef_Init(&module_def);
}
