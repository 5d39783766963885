/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The coverage-guided fuzzer: libFuzzer around an interpreter that runs tests.fuzz.machine.run(),
 * or run() of the module that PYXSD_FUZZ_MODULE names, as tests.fuzz.readers.
 *
 * The extension modules are built with -fsanitize=fuzzer-no-link and report their edges to the
 * libFuzzer in this program.  An exception of run() is a find: it is printed and the program
 * aborts, so that libFuzzer keeps the input.  PYXSD_FUZZ_PYTHON is the interpreter whose packages
 * are used, PYTHONPATH the copy of the project.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { RECORD = 8 };                     /* as in program.py */

static PyObject *run;

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max);

static void die(const char *what)
{
    fprintf(stderr, "%s\n", what);
    if (PyErr_Occurred())
        PyErr_Print();
    abort();
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    const char *python = getenv("PYXSD_FUZZ_PYTHON");
    const char *name;
    PyConfig config;
    PyObject *module;

    (void)argc;
    (void)argv;
    PyConfig_InitPythonConfig(&config);
    config.install_signal_handlers = 0;
    config.use_hash_seed = 1;            /* an input does the same in every run */
    config.hash_seed = 0;
    config.write_bytecode = 0;
    if (python)
        PyConfig_SetBytesString(&config, &config.program_name, python);
    if (PyStatus_Exception(Py_InitializeFromConfig(&config)))
        die("the interpreter does not start");
    PyConfig_Clear(&config);
    name = getenv("PYXSD_FUZZ_MODULE");
    module = PyImport_ImportModule(name ? name : "tests.fuzz.machine");
    if (!module)
        die("the module with run() cannot be imported");
    run = PyObject_GetAttrString(module, "run");
    Py_DECREF(module);
    if (!run)
        die("the module has no run");
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    PyObject *done = PyObject_CallFunction(run, "y#", (const char *)data, (Py_ssize_t)size);

    if (!done)
        die("FOUND:");
    Py_DECREF(done);
    return 0;
}

/* Whole records are inserted, removed, doubled and moved; else libFuzzer's own mutations. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned int seed)
{
    uint8_t record[RECORD];
    size_t n = size > 1 ? (size - 1) / RECORD : 0, from, to;
    unsigned int state = seed;

    if (n == 0 || rand_r(&state) % 2)
        return LLVMFuzzerMutate(data, size, max);
    from = 1 + RECORD * ((size_t)rand_r(&state) % n);
    to = 1 + RECORD * ((size_t)rand_r(&state) % n);
    memcpy(record, data + from, RECORD);
    switch (rand_r(&state) % 5) {
    case 0:                              /* remove */
        memmove(data + from, data + from + RECORD, size - from - RECORD);
        return size - RECORD;
    case 1:                              /* double */
        if (size + RECORD > max)
            return LLVMFuzzerMutate(data, size, max);
        memmove(data + to + RECORD, data + to, size - to);
        memcpy(data + to, record, RECORD);
        return size + RECORD;
    case 2:                              /* exchange */
        memcpy(data + from, data + to, RECORD);
        memcpy(data + to, record, RECORD);
        return size;
    case 3:                              /* change one field */
        data[from + (size_t)rand_r(&state) % RECORD] = (uint8_t)rand_r(&state);
        return size;
    default:                             /* one field of another record */
        from += (size_t)rand_r(&state) % RECORD;
        data[from] = data[to + (from - 1) % RECORD];
        return size;
    }
}
