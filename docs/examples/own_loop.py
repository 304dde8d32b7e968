"""Your own loop: torchattacks mixed, eps controlled, features kept consistent, the averaged model judged.

Runs on the digits that scikit-learn embeds, in under a minute on two cores: ``python docs/examples/own_loop.py``.
"""

import torch
import torch.nn.functional as F

import robust_adapt
from robust_adapt.config import DataConfig
from robust_adapt.data import Batches


def main(epochs: int = 8, eps: float = 0.1, width: int = 8) -> tuple[float, float]:
    """Train a small ResNet-18; returns clean and PGD-20 accuracy of the averaged weights on the test split."""
    torch.manual_seed(0)
    data = robust_adapt.load_data(DataConfig(name="digits", validation=120))
    mean, std = data.statistics()
    model = robust_adapt.build_model("ResNet18", channels=1, size=8, width=width, mean=mean, std=std)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    average = robust_adapt.WeightAverage(model, decay=0.98)
    batches = Batches(data.train, 64, seed=0)

    attack = robust_adapt.DiverseAttack(model, ["pgd", "mifgsm", "upgd-margin"], eps=eps, steps=2)
    controller = robust_adapt.EpsilonController("ramp", target=eps, total_steps=len(batches) * epochs)
    with robust_adapt.FeatureTap(model) as tap:  # no change to the model's code
        for epoch in range(epochs):
            for x, y in batches.epoch(epoch):
                attack.eps = controller.eps
                x_adv = attack(x, y)  # a torchattacks.attack.Attack like any other
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
    clean, robust = main()
    print(f"clean {100 * clean:.1f} %, PGD-20 at Linf 0.1 {100 * robust:.1f} %")
