"""Your own loop on a compiled model: one ``model.compile()``, and attack, features and training share it.

Runs on the digits that scikit-learn embeds: ``python docs/examples/own_loop_compiled.py``, with torch's compiler
(inductor) ``--backend inductor``, which takes about a minute and a half of one core before the first step.
"""

import argparse

import torch
import torch.nn.functional as F

import robust_adapt
from robust_adapt.config import DataConfig
from robust_adapt.data import Batches


def main(epochs: int = 4, eps: float = 0.1, width: int = 8, backend: str = "aot_eager") -> tuple[float, float]:
    """Train a small ResNet-18; returns clean and PGD-20 accuracy of the averaged weights on the test split.

    backend: ``aot_eager`` traces the model without generating code, so that the example starts at once.
    """
    torch.manual_seed(0)
    data = robust_adapt.load_data(DataConfig(name="digits", validation=120))
    mean, std = data.statistics()
    model = robust_adapt.build_model("ResNet18", channels=1, size=8, width=width, mean=mean, std=std)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    average = robust_adapt.WeightAverage(model, decay=0.98)  # a copy of the plain model, for judging
    batches = Batches(data.train, 64, seed=0)  # whole batches only: another size would be compiled anew

    attack = robust_adapt.DiverseAttack(model, ["pgd"], eps=eps, steps=2)
    controller = robust_adapt.EpsilonController("ramp", target=eps, total_steps=len(batches) * epochs)
    with robust_adapt.FeatureTap(model) as tap:  # before the first compiled call: later hooks are not seen
        model.compile(backend=backend, dynamic=False)  # in place: the attack's model is the same object
        for epoch in range(epochs):
            for x, y in batches.epoch(epoch):
                attack.eps = controller.eps
                x_adv = attack(x, y)  # parameters are frozen meanwhile: no backward into the weights is compiled
                clean_logits, clean_features = tap(x)
                adv_logits, adv_features = tap(x_adv)
                consistency = robust_adapt.feature_consistency(clean_features, adv_features, relative=True)
                loss = F.cross_entropy(adv_logits, y) + 0.5 * consistency
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                average.update(model)
                controller.step()

    record = robust_adapt.evaluate_model(
        average.module, data.test, robust_adapt.Ball("Linf", eps), rows=["Clean", "PGD-20"]
    )
    return record.attacks[0].accuracy, record.attacks[1].accuracy


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="aot_eager", help="of torch.compile")
    clean, robust = main(backend=parser.parse_args().backend)
    print(f"clean {100 * clean:.1f} %, PGD-20 at Linf 0.1 {100 * robust:.1f} %")
