"""A 5 by 7 pixel font, so that titles need no font file. One base-32 digit is one row of five pixels."""

from __future__ import annotations

import numpy as np

WIDTH, HEIGHT, ADVANCE = 5, 7, 6

_TABLE = """
A ehhvhhh  B uhhuhhu  C ehggghe  D uhhhhhu  E vgguggv  F vgguggg  G ehgnhhf  H hhhvhhh  I e44444e  J 72222ic
K hikokih  L ggggggv  M hrllhhh  N hpljhhh  O ehhhhhe  P uhhuggg  Q ehhhlid  R uhhukih  S fgge11u  T v444444
U hhhhhhe  V hhhhha4  W hhhllla  X hha4ahh  Y hha4444  Z v1248gv
a 00e1fhf  b ggmphhu  c 00egghe  d 11djhhf  e 00ehvge  f 698s888  g 0fhhf1e  h ggmphhh  i 40c444e  j 20622ic
k ggikoki  l c44444e  m 00qllhh  n 00mphhh  o 00ehhhe  p 00uhugg  q 00djf11  r 00mpggg  s 00ege1u  t 88s8896
u 00hhhjd  v 00hhha4  w 00hhlla  x 00ha4ah  y 00hhf1e  z 00v248v
0 ehjlphe  1 4c4444e  2 eh1248v  3 v2421he  4 26aiv22  5 vgu11he  6 68guhhe  7 v124888  8 ehhehhe  9 ehhf12c
. 00000cc  , 0000c48  : 0cc0cc0  - 000v000  + 044v440  = 00v0v00  % op248j3  ( 2488842  ) 8422248  / 01248g0
_ 000000v  ! 4444404  ? eh12404  > 8421248  < 248g842  * 04lel40  ' c480000  | 4444444  # aavavaa
"""
_words = _TABLE.split()
GLYPHS = {" ": "0000000", **dict(zip(_words[::2], _words[1::2]))}


def text_width(text: str) -> int:
    """Pixels across."""
    return max(ADVANCE * len(text) - 1, 0)


def bitmap(text: str) -> np.ndarray:
    """The text as booleans (7, width). Characters without a glyph are drawn as a box."""
    pixels = np.zeros((HEIGHT, text_width(text)), dtype=bool)
    for i, character in enumerate(text):
        rows = [int(digit, 32) for digit in GLYPHS.get(character, "vhhhhhv")]
        for y, row in enumerate(rows):
            x = ADVANCE * i
            pixels[y, x:x + WIDTH] = [bool(row >> bit & 1) for bit in reversed(range(WIDTH))]
    return pixels


def draw(canvas: np.ndarray, text: str, x: int, y: int, colour: tuple = (0, 0, 0)) -> None:
    """Writes text into an RGB canvas with its top left corner at (x, y); what falls outside is cut off."""
    pixels = bitmap(text)
    x0, y0 = max(x, 0), max(y, 0)
    area = canvas[y0:max(y + HEIGHT, 0), x0:max(x + pixels.shape[1], 0)]
    area[pixels[y0 - y:, x0 - x:][:area.shape[0], :area.shape[1]]] = colour
