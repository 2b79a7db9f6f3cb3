"""The one thing that pyproject.toml cannot say: a C extension that may fail to compile.

`ANYWS_EXTENSION=no` leaves it out, `ANYWS_EXTENSION=require` makes its failure an error.
"""

import os
import sys

from setuptools import Extension, setup

mode = os.environ.get("ANYWS_EXTENSION", "optional")
if mode not in {"no", "optional", "require"}:
    sys.exit(f"ANYWS_EXTENSION={mode}, expected no, optional or require")

extension = Extension(
    "anyws.sansio._speedups",
    sources=["anyws/sansio/_speedups.c"],
    depends=["anyws/sansio/_queue.h"],
    extra_compile_args=[] if sys.platform == "win32" else ["-O3"],
    optional=mode != "require",
)

setup(ext_modules=[] if mode == "no" else [extension])
