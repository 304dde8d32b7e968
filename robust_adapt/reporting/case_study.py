"""The case study as the page shows it: pictures as data URIs, as many as a page has room for."""

from typing import Any

from robust_adapt.records import Case
from robust_adapt.reporting.dossier import Gallery
from robust_adapt.reporting.inline import picture
from robust_adapt.reporting.pictures import amplified, grey_difference

PICTURES = 2_000_000  # characters of the case study, of a page of at most 3 MB
SMALL = 64  # pixels a side up to which a pixel stays a square


def gallery_of(gallery: Gallery | None) -> dict[str, Any] | None:
    """The case study, as many of its images as a page has room for."""
    if gallery is None or not any(gallery.cases.values()):
        return None
    count, room = 0, PICTURES
    amplification = {attack: amplified(cases, gallery.ball) for attack, cases in gallery.cases.items()}
    together = list(zip(*gallery.cases.values(), strict=True))
    shown: list[list[dict[str, Any]]] = []
    for same in together:
        one = [_case(case, amplification[attack]) for attack, case in zip(gallery.cases, same, strict=True)]
        room -= sum(each["size"] for each in one)
        if room < 0:
            break
        shown.append(one)
        count += 1
    if not count:
        return None
    return {
        "attacks": list(gallery.cases),
        "amplification": amplification,
        "cases": shown,
        "how": gallery.how,
        "large": shown[0][0]["large"],
        "ball": gallery.ball,
        "left_out": len(together) - count,
    }


def _case(case: Case, amplification: int) -> dict[str, Any]:
    clean, *others = list(case.images)
    pictures = {title: picture(pixels) for title, pixels in case.images.items()}
    differences = {title: picture(grey_difference(case, title, amplification)) for title in others}
    return {
        "label": case.label,
        "clean": (clean, pictures[clean]),
        "attacked": [(title, pictures[title], differences[title]) for title in others],
        "answers": case.answers,
        "large": max(case.images[clean].shape[:2]) > SMALL,
        "size": sum(map(len, [*pictures.values(), *differences.values()])),
    }
