"""One row per op, by family. Importing this package registers every row and gives nodes their operators."""

from . import (
    arrange,
    conv,
    create,
    draws,
    elementwise,
    expected,
    images,
    index,
    linear,
    neural,
    panels,
    partition,
    pool,
    reduce,
    selection,
    shape,
    sort,
    special,
    sugar,
)

sugar.install()

FAMILIES = [elementwise, shape, arrange, reduce, create, partition, index, sort, selection, linear, panels, conv, pool, neural, images, special, draws,
            expected]
