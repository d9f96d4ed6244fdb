"""A mixture of experts: while training, a gate network draws one expert per digit; at test time the likeliest one is used.

    python examples/mixture_of_experts.py [--epochs 12]

The draw is discrete, so the gate learns by a straight-through gradient: its value is the one-hot draw, its derivative
that of the relaxed draw (Jang, Gu and Poole 2017). The draw is one node of the graph, so the backward pass sees the
expert that the forward pass drew. Data: scikit-learn's 1,797 handwritten digits, a fifth held out.
"""

import argparse

import numpy as np

import symgrad as sg
import symgrad.tensor as T

EXPERTS, HIDDEN, BATCH = 4, 32, 64


def digits():
    """(train images, labels, test images, labels), images as (n, 64) in [0, 1]."""
    from sklearn.datasets import load_digits
    data = load_digits()
    images, labels = (data.data / 16).astype("float32"), data.target.astype("int64")
    order = np.random.default_rng(0).permutation(len(images))
    train, test = order[len(order) // 5:], order[:len(order) // 5]
    return images[train], labels[train], images[test], labels[test]


def build():
    """(step(images, labels) -> loss, classify(images) -> (classes, experts))."""
    stream = sg.random.RandomStream(0)
    gate = sg.nn.Dense(64, EXPERTS, name="gate")
    experts = [sg.nn.Sequential([sg.nn.Dense(64, HIDDEN, activation=T.relu), sg.nn.Dense(HIDDEN, 10)], name=f"expert{k}")
               for k in range(EXPERTS)]
    params = [p for part in (gate, *experts) for p in part.params().values()]

    def mixed(images, choice):
        answers = T.stack([expert(images) for expert in experts], axis=1)           # (n, experts, classes)
        return T.sum(answers * T.expand_dims(choice, -1), axis=1)

    images, labels = T.tensor("images", (BATCH, 64)), T.tensor("labels", (BATCH,), dtype="int64")
    drawn = sg.random.gumbel_softmax(stream, gate(images), 1.0, hard=True)
    loss = sg.losses.cross_entropy(mixed(images, drawn), labels)
    # experts should share the work: the gate's mean choice is drawn towards uniform
    use = T.mean(T.softmax(gate(images)), axis=0)
    loss = loss + 0.5 * EXPERTS * T.sum(use * use)
    step = sg.function([images, labels], loss, updates=sg.optim.adam(loss, params, lr=3e-3))

    anything = T.tensor("anything", ("n", 64))
    chosen = T.argmax(gate(anything), axis=1)
    logits = mixed(anything, T.one_hot(chosen, EXPERTS, dtype="float32"))
    return step, sg.function([anything], [T.argmax(logits, axis=1), chosen])


def main(argv=None):
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--epochs", type=int, default=12)
    options = options.parse_args(argv)
    sg.nn.seed(0)
    images, labels, test_images, test_labels = digits()
    step, classify = build()
    rng = np.random.default_rng(1)
    for _ in range(options.epochs):
        order = rng.permutation(len(images))
        for k in range(0, len(order) - BATCH + 1, BATCH):
            step(images[order[k:k + BATCH]], labels[order[k:k + BATCH]])
    classes, chosen = classify(test_images)
    accuracy = float((classes == test_labels).mean())
    print(f"accuracy      {accuracy:.1%} of {len(test_labels)} digits the network was not trained on")
    print(f"experts used  {', '.join(f'{share:.0%}' for share in np.bincount(chosen, minlength=EXPERTS) / len(chosen))}")
    return accuracy


if __name__ == "__main__":
    main()
