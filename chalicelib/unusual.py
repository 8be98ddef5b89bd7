"""Is a push unusual for its host? `why(change, earlier)` says in words why it is, or nothing. Pure.

The vault sees ciphertext: it knows paths, sizes and times, neither content nor entropy. What a wipe, a re-encryption
and a renamed folder have in common there is that much of what *was* there is not there any more as it was. So four
shares are looked at, each of what was there before: files changed or deleted, their bytes, and how much smaller the
tree has become, in files and in bytes. What is only added harms nothing and counts for nothing.

A share is unusual if it is LEAST or more, if it is above median + SPREADS scaled median absolute deviations of the
host's last HISTORY pushes, *and* if fewer than SIMILAR of those came near it. The first is so that a quiet host does
not cry wolf over trifles; the second is the usual robust rule for outliers (Iglewicz and Hoaglin, How to Detect and
Handle Outliers, 1993; NIST's Engineering Statistics Handbook, 1.3.5.17, scales the deviation the same way), which
half of the history can neither raise nor lower; the third lets a weekly full or a nightly dump be usual, which no
median sees. Commvault's file activity anomaly, for one, is three standard deviations above a host's own baseline; a
deviation is no measure here, since one large night would hide the next.

While there are fewer than YOUNG pushes to compare with, half of the files must be touched, or half of the tree be gone,
and one push like it is enough to make it usual; bytes alone say nothing then, since one nightly dump may be most of
them. First pushes have nothing to change, and archives in which less than MIN_FILES files and MIN_BYTES are touched
are not judged.

Shapes that this was made for. rdiff-backup keeps what it deletes as increments: there a wiped host shows as a mirror
that is touched from end to end in a tree that has grown, and the increments, which never change, thin the share out;
so LEAST is low. gocryptfs in forward mode gives a renamed folder's files new names and a new id each: deleted and
added. In reverse mode long names have a file of their own, so a few files more. A new key touches everything.

What it cannot see: an intruder who goes slowly, LEAST a night; and what was changed and put back between two pushes.
Retention's weeks and months are for that. A commit that the vault could not count (it gives up after a minute: too many
files) is unusual where it could before, or who drowns a wipe in a million files would not be seen.

Pushes whose flag nobody has taken off are no part of what is usual, or three bad nights would make the fourth a good
one. The tree that the push before left is what was there before, if it held more than the vault says that this one
began with: then a commit came in between that nobody was told of.
"""

from collections.abc import Iterable
from itertools import islice
from statistics import median

from msgspec import Struct

from chalicelib.model import Change, RestorePoint

HISTORY = 30
YOUNG = 7
LEAST = 0.25
HALF = 0.5
SPREADS = 6
SCALE = 1.4826  # of the median absolute deviation, to a standard deviation of what is normally distributed
SIMILAR = 2
NEAR = 0.8
UNCOUNTED = "the vault could not count what it changed, as it could the push before"
MIN_FILES = 25
MIN_BYTES = 64 * 2**20


class _Loss(Struct, frozen=True, kw_only=True):
    """So much of what was there. `of_bytes`: in bytes, else in files. `gone`: the tree is smaller by it."""

    lost: int
    before: int
    of_bytes: bool
    gone: bool

    @property
    def share(self) -> float:
        return self.lost / self.before if self.before else 0.0

    @property
    def matters(self) -> bool:
        return self.lost >= (MIN_BYTES if self.of_bytes else MIN_FILES)

    def said(self, usually: str) -> str:
        amount = f"{self.lost / 10**6:,.0f} of {self.before / 10**6:,.0f} MB" if self.of_bytes else ""
        amount = amount or f"{self.lost:,} of {self.before:,} files"
        return f"{amount} {'fewer' if self.gone else 'changed or deleted'} ({self.share:.0%}{usually})"


def why(change: Change | None, earlier: Iterable[RestorePoint]) -> str:
    """Why a push that did this is unusual for its host; empty if it is not. `earlier`: newest first, of any outcome.

    `change` None: the vault could not count it.
    """
    earlier = list(earlier)
    if change is None:
        taken = next((point for point in earlier if not point.marks.unusual), None)
        return UNCOUNTED if taken and taken.change and not taken.uncounted else ""
    known = [point for point in earlier if point.change]
    usual = [_losses(c) for c in islice((p.change for p in known if not p.marks.unusual), HISTORY) if c]
    tonight = _losses(change, known[0].change if known else None)
    found: dict[bool, str] = {}  # that it is gone is said instead of that it was changed or deleted
    for number, loss in enumerate(tonight):
        shares = [losses[number].share for losses in usual]
        if loss.matters and loss.share >= _least(loss, shares) and _is_outlier(loss.share, shares):
            found[loss.of_bytes] = loss.said(f"; usually {median(shares):.0%}" if shares else "")
    return "; ".join(found.values())


def _losses(change: Change, left_before: Change | None = None) -> tuple[_Loss, ...]:
    files = max(change.files_before, left_before.files_after if left_before else 0)
    size = max(change.bytes_before, left_before.bytes_after if left_before else 0)
    # Of what was there before, what is still there as it was.
    same_files = max(0, change.files_before - change.files_changed - change.files_deleted)
    same_bytes = min(change.bytes_before, max(0, change.bytes_after - change.bytes_changed))
    return (
        _Loss(lost=files - same_files, before=files, of_bytes=False, gone=False),
        _Loss(lost=size - same_bytes, before=size, of_bytes=True, gone=False),
        _Loss(lost=max(0, files - change.files_after), before=files, of_bytes=False, gone=True),
        _Loss(lost=max(0, size - change.bytes_after), before=size, of_bytes=True, gone=True),
    )


def _least(loss: _Loss, shares: list[float]) -> float:
    if loss.gone:
        return HALF
    if len(shares) >= YOUNG:
        return LEAST
    return 2.0 if loss.of_bytes else HALF  # 2: never


def _is_outlier(share: float, shares: list[float]) -> bool:
    young = len(shares) < YOUNG
    if sum(each >= NEAR * share for each in shares) >= (1 if young else SIMILAR):
        return False
    if young:
        return True
    middle = median(shares)
    return share > middle + SPREADS * SCALE * median(abs(each - middle) for each in shares)
