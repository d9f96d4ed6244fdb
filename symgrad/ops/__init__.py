"""One row per op, by family. Importing this package registers every row and gives nodes their operators."""

from . import conv, elementwise, linear, neural, pool, reduce, shape, sugar

sugar.install()

FAMILIES = [elementwise, shape, reduce, linear, conv, pool, neural]
