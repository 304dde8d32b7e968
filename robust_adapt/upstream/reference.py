"""pyautoattack under the signatures of the reference AutoAttack, which robustbench's ``benchmark()`` calls.

Imported by the finder of imports.py at ``import autoattack``, never at start-up: it needs torch.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyautoattack
import torch

from robust_adapt.errors import UpstreamError


class AutoAttack(pyautoattack.AutoAttack):
    """The reference's constructor and results; the attacks are pyautoattack's, untouched."""

    def __init__(  # the reference's own nine parameters, in its order
        self,
        model: torch.nn.Module,
        norm: str = "Linf",
        eps: float = 0.3,
        seed: int | None = None,
        verbose: bool = True,
        attacks_to_run: Sequence[str] = (),
        version: str = "standard",
        is_tf_model: bool = False,
        device: torch.device | str | None = None,  # the model's, where the reference says "cuda"
        log_path: str | Path | None = None,
    ) -> None:
        attacks = list(attacks_to_run) or None
        if device is None:
            held = (*model.parameters(), *model.buffers()) if isinstance(model, torch.nn.Module) else ()
            device = next((each.device for each in held), torch.device("cpu"))
        super().__init__(model, attacks=attacks, device=device, eps=eps, norm=norm, seed=seed, version=version)
        self.verbose = verbose
        self.log_path = log_path

    def run_standard_evaluation(
        self,
        x_orig: torch.Tensor,
        y_orig: torch.Tensor,
        bs: int = 250,
        return_labels: bool = False,
        state_path: Path | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """The adversarial images, and with ``return_labels`` the labels the model gives them."""
        if state_path is not None:  # the saved state never matches on reload, seen only after hours
            raise UpstreamError(
                f"Expected no state file, but got {str(state_path)!r}; "
                "upstream cannot resume from it, `robust_adapt.autoattack(..., state_dir=...)` can."
            )
        with _log_file(self.logger, self.log_path):
            x_adv, y_adv = super().run_standard_evaluation(x_orig, y_orig, batch_size=bs)
        return (x_adv, y_adv) if return_labels else x_adv


@contextmanager
def _log_file(logger: logging.Logger, path: str | Path | None) -> Iterator[None]:
    """Everything AutoAttack says goes to the file too, as the reference's ``log_path`` means it."""
    if path is None:
        yield
        return
    handler, level = logging.FileHandler(path, encoding="utf-8"), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
        handler.close()
