/* Messages that were decoded and that nobody has taken yet: what _pyqueue specifies, in C.
 *
 * Owns their order, their number and their bytes; knows no frame. It is a part of _speedups.c.
 */

#define FIRST_CAPACITY 8
#define KEPT_CAPACITY 1024 /* 8 KiB: what an empty queue may keep */

typedef struct {
    PyObject_HEAD
    PyObject *fragment; /* the type; the module has it */
    /* A ring; none as long as nothing has had to wait. */
    PyObject **items;
    Py_ssize_t capacity; /* a power of two */
    Py_ssize_t first;
    Py_ssize_t count;
    Py_ssize_t size; /* their bytes */
    Py_ssize_t peak_count;
    Py_ssize_t peak_size;
    long long taken;
    Py_ssize_t high_messages;
    Py_ssize_t low_messages;
    Py_ssize_t high_bytes;
    Py_ssize_t low_bytes;
    Py_ssize_t calls_left;
    char held;
    char paused;
    char replenishes;
    char starved;
} Queue;

static int
is_full(Py_ssize_t count, Py_ssize_t size, const Queue *self)
{
    return count >= self->high_messages || size >= self->high_bytes;
}

static int
is_low(Py_ssize_t count, Py_ssize_t size, const Queue *self)
{
    return count <= self->low_messages && size <= self->low_bytes;
}

static PyObject *
first_of(const Queue *self)
{
    return self->items[self->first];
}

/* The bytes of a message or fragment; a character of a str counts as one. -1: it is none of the two.
 * Nothing here runs any Python, which might change the queue meanwhile. */
static Py_ssize_t
measure(const Queue *self, PyObject *message)
{
    Py_ssize_t size = -1;
    if (PyUnicode_CheckExact(message)) {
        return PyUnicode_GET_LENGTH(message);
    }
    if (PyBytes_CheckExact(message)) {
        return PyBytes_GET_SIZE(message);
    }
    if ((PyObject *)Py_TYPE(message) == self->fragment) {
        PyObject *data = PyObject_GetAttrString(message, "data");
        if (data == NULL) {
            return -1;
        }
        if (PyUnicode_CheckExact(data)) {
            size = PyUnicode_GET_LENGTH(data);
        } else if (PyBytes_CheckExact(data)) {
            size = PyBytes_GET_SIZE(data);
        }
        Py_DECREF(data);
    }
    if (size < 0) {
        PyErr_Format(PyExc_TypeError, "message of type %s, expected str, bytes or Fragment",
                     Py_TYPE(message)->tp_name);
    }
    return size;
}

static int
make_room(Queue *self, Py_ssize_t more)
{
    if (more <= self->capacity - self->count) {
        return 0;
    }
    size_t capacity = self->capacity ? (size_t)self->capacity : FIRST_CAPACITY;
    while (capacity < (size_t)self->count + (size_t)more) {
        capacity *= 2;
    }
    PyObject **items = PyMem_New(PyObject *, capacity);
    if (items == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < self->count; i++) {
        items[i] = self->items[(self->first + i) & (self->capacity - 1)];
    }
    PyMem_Free(self->items);
    self->items = items;
    self->capacity = (Py_ssize_t)capacity;
    self->first = 0;
    return 0;
}

static void
add(Queue *self, PyObject *message)
{
    self->items[(self->first + self->count) & (self->capacity - 1)] = Py_NewRef(message);
    self->count++;
}

/* Looks whether there are more than ever, but for what is about to leave. */
static void
note_peaks(Queue *self, Py_ssize_t leaving, Py_ssize_t leaving_size)
{
    if (self->count - leaving > self->peak_count) {
        self->peak_count = self->count - leaving;
    }
    if (self->size - leaving_size > self->peak_size) {
        self->peak_size = self->size - leaving_size;
    }
}

static int
add_all(Queue *self, PyObject *messages, Py_ssize_t size)
{
    Py_ssize_t more = PyList_GET_SIZE(messages);
    if (make_room(self, more) < 0) {
        return -1;
    }
    for (Py_ssize_t i = 0; i < more; i++) {
        add(self, PyList_GET_ITEM(messages, i));
    }
    self->size += size;
    return 0;
}

static PyObject *
take_first(Queue *self, Py_ssize_t size)
{
    PyObject *message = first_of(self);
    self->first = (self->first + 1) & (self->capacity - 1);
    self->count--;
    self->size -= size;
    self->taken++;
    if (self->count == 0 && self->capacity > KEPT_CAPACITY) {
        PyMem_Free(self->items);
        self->items = NULL;
        self->capacity = self->first = 0;
    }
    return message;
}

static PyObject *
Queue_append(Queue *self, PyObject *message)
{
    Py_ssize_t size = measure(self, message);
    if (size < 0 || make_room(self, 1) < 0) {
        return NULL;
    }
    add(self, message);
    self->size += size;
    note_peaks(self, 0, 0);
    Py_RETURN_NONE;
}

static PyObject *
Queue_appendleft(Queue *self, PyObject *message)
{
    Py_ssize_t size = measure(self, message);
    if (size < 0 || make_room(self, 1) < 0) {
        return NULL;
    }
    self->first = (self->first - 1) & (self->capacity - 1);
    self->items[self->first] = Py_NewRef(message);
    self->count++;
    self->size += size;
    Py_RETURN_NONE;
}

static PyObject *
Queue_extend(Queue *self, PyObject *const *args, Py_ssize_t count)
{
    if (count != 2 || !PyList_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, "extend() takes a list of messages, and their bytes");
        return NULL;
    }
    Py_ssize_t size = PyLong_AsSsize_t(args[1]);
    if ((size == -1 && PyErr_Occurred()) || add_all(self, args[0], size) < 0) {
        return NULL;
    }
    note_peaks(self, 0, 0);
    Py_RETURN_NONE;
}

static PyObject *
Queue_popleft(Queue *self, PyObject *Py_UNUSED(unused))
{
    if (self->count == 0) {
        PyErr_SetString(PyExc_IndexError, "no message waits");
        return NULL;
    }
    Py_ssize_t size = measure(self, first_of(self));
    return size < 0 ? NULL : take_first(self, size);
}

static Py_ssize_t
Queue_length(Queue *self)
{
    return self->count;
}

static PyObject *
Queue_get_head(Queue *self, void *Py_UNUSED(closure))
{
    if (self->count == 0) {
        PyErr_SetString(PyExc_IndexError, "no message waits");
        return NULL;
    }
    return Py_NewRef(first_of(self));
}

static PyObject *
Queue_get_full(Queue *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(is_full(self->count, self->size, self));
}

static PyObject *
Queue_get_low(Queue *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(is_low(self->count, self->size, self));
}

static void
Queue_dealloc(Queue *self)
{
    PyTypeObject *type = Py_TYPE(self);
    for (Py_ssize_t i = 0; i < self->count; i++) {
        Py_DECREF(self->items[(self->first + i) & (self->capacity - 1)]);
    }
    PyMem_Free(self->items);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyMethodDef Queue_methods[] = {
    {"append", (PyCFunction)Queue_append, METH_O,
     "append($self, message, /)\n--\n\nAdd a message or fragment behind the others."},
    {"appendleft", (PyCFunction)Queue_appendleft, METH_O,
     "appendleft($self, message, /)\n--\n\nPut one in front of the others that was there before."},
    {"extend", (PyCFunction)(void (*)(void))Queue_extend, METH_FASTCALL,
     "extend($self, messages, size, /)\n--\n\nAdd messages behind the others."},
    {"popleft", (PyCFunction)Queue_popleft, METH_NOARGS,
     "popleft($self, /)\n--\n\nTake the oldest out."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef Queue_members[] = {
    {"size", T_PYSSIZET, offsetof(Queue, size), READONLY, "Their bytes."},
    {"peak_count", T_PYSSIZET, offsetof(Queue, peak_count), READONLY,
     "How many there have been at the most."},
    {"peak_size", T_PYSSIZET, offsetof(Queue, peak_size), READONLY, "Likewise of their bytes."},
    {"taken", T_LONGLONG, offsetof(Queue, taken), READONLY,
     "How often one was taken out."},
    {"high_messages", T_PYSSIZET, offsetof(Queue, high_messages), 0, "How many make it full."},
    {"low_messages", T_PYSSIZET, offsetof(Queue, low_messages), 0, "From how few on it is low."},
    {"high_bytes", T_PYSSIZET, offsetof(Queue, high_bytes), 0, "Likewise of their bytes."},
    {"low_bytes", T_PYSSIZET, offsetof(Queue, low_bytes), 0, "Likewise."},
    {"calls_left", T_PYSSIZET, offsetof(Queue, calls_left), 0, "How many take() may still give."},
    {"held", T_BOOL, offsetof(Queue, held), 0, "Whether take() gives none."},
    {"paused", T_BOOL, offsetof(Queue, paused), 0, "Whether nothing comes until it is low."},
    {"replenishes", T_BOOL, offsetof(Queue, replenishes), 0, "Whether take() may decode more."},
    {"starved", T_BOOL, offsetof(Queue, starved), 0, "Whether it has, and the queue is not full."},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef Queue_properties[] = {
    {"head", (getter)Queue_get_head, NULL, "The oldest.", NULL},
    {"full", (getter)Queue_get_full, NULL, "Whether it has reached a high mark.", NULL},
    {"low", (getter)Queue_get_low, NULL, "Whether it is at or under both low marks.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot Queue_slots[] = {
    {Py_tp_doc, "Messages that were decoded and that nobody has taken yet, oldest first."},
    {Py_tp_dealloc, (void *)Queue_dealloc},
    {Py_tp_methods, Queue_methods},
    {Py_tp_members, Queue_members},
    {Py_tp_getset, Queue_properties},
    {Py_sq_length, (void *)Queue_length},
    {0, NULL},
};

static PyType_Spec Queue_spec = {
    .name = "anyws.sansio._speedups.MessageQueue",
    .basicsize = sizeof(Queue),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = Queue_slots,
};

static Queue *
new_queue(PyTypeObject *type, PyObject *fragment)
{
    Queue *self = (Queue *)type->tp_alloc(type, 0); /* zeroed */
    if (self != NULL) {
        self->fragment = fragment;
        self->high_messages = self->low_messages = PY_SSIZE_T_MAX;
        self->high_bytes = self->low_bytes = PY_SSIZE_T_MAX;
        self->calls_left = PY_SSIZE_T_MAX;
    }
    return self;
}
