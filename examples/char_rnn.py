"""An LSTM that writes text letter by letter, after Karpathy 2015, "The Unreasonable Effectiveness of Recurrent Neural Networks".

Trained on this project's licence it reaches a loss below 0.2 nats per letter in 300 steps; guessing costs 4. Training draws its
own windows of the text inside the compiled function, and writing is one compiled loop whose letters are drawn inside, too.
"""

import argparse
from pathlib import Path

import numpy as np

import symgrad as sg
import symgrad.tensor as T

LICENSE = Path(__file__).resolve().parents[1] / "LICENSE"


class Writer(sg.nn.Layer):
    """Letters (length, batch) and first states -> scores of the next letters (length, batch, letters) and last states."""

    def __init__(self, letters, width=128):
        self.embedding = sg.nn.Embedding(letters, 32)
        self.lstm = sg.nn.LSTM(32, width)
        self.scores = sg.nn.Dense(width, letters, init=sg.nn.init.lecun_normal)

    def forward(self, letters, states=None):
        rows, states = self.lstm(self.embedding(letters), states)
        return self.scores(rows), states


def trainer(model, codes, stream, batch=32, length=40):
    """A function without arguments: one step of Adam on random windows of the text; gives the loss per letter."""
    starts = stream.integers(0, len(codes) - length, (batch,))
    window = T.constant(codes)[T.expand_dims(T.arange(length + 1), 1) + starts]
    scores, _ = model(window[:-1])
    loss = sg.losses.cross_entropy(scores, window[1:])
    params = list(model.params().values())
    gradients = sg.optim.clip_by_norm(sg.grad(loss, params), 1.0)
    return sg.function([], loss, updates=sg.optim.adam(gradients, params, lr=3e-3))


def writer(model, stream, width=128):
    """A function (first letter, number, temperature) -> the letters that follow, each drawn from what the model expects next."""
    first, count, temperature = T.scalar("first", "int64"), T.scalar("count", "int64"), T.scalar("temperature")

    def step(letter, h, c):
        scores, (h, c) = model(letter.reshape((1, 1)), (h, c))
        return [stream.categorical(T.softmax(scores[0, 0] / temperature)), h, c]

    zeros = T.zeros((1, 1, width))
    letters, _, _ = sg.scan(step, outputs_info=[first, zeros, zeros], n_steps=count)
    return sg.function([first, count, temperature], letters)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", type=Path, default=LICENSE)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--letters", type=int, default=300, help="how many to write")
    options = parser.parse_args(arguments)
    text = options.text.read_text()
    alphabet = sorted(set(text))
    codes = np.array([alphabet.index(letter) for letter in text], "int64")
    sg.nn.seed(0)
    model, stream = Writer(len(alphabet)), sg.random.RandomStream(0)
    train, write = trainer(model, codes, stream), writer(model, stream)
    for step in range(options.steps):
        loss = float(train())
        if step % 50 == 0 or step == options.steps - 1:
            print(f"step {step:4d}  loss {loss:.3f} nats per letter")
    for temperature in (0.5, 1.0):
        written = write(codes[0], options.letters, temperature)
        print(f"\n--- temperature {temperature}\n{text[0]}{''.join(alphabet[k] for k in written)}")
    return loss


if __name__ == "__main__":
    main()
