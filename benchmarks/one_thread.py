"""The environment of a process that is measured on one thread."""

# XLA's pool of threads has as many as NPROC says; its flag alone leaves more than one busy.
ONE_THREAD = {
    "NPROC": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
}
