"""States and what each grew from: the tree of all that was ever learned, and in it the line that the next session goes on with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cl.errors import StoreError
from flows.history.entries import Began, Learned

Tree = Mapping[str, Learned]
Gos = Mapping[str, tuple[str, ...]]


def mates(tree: Tree, gos: Gos, what: Began | Learned) -> list[Learned]:
    """The states below a candidate that are judged with it, nearest first."""
    together, below = gos.get(what.state, ()), what.parent
    below_it: list[Learned] = []
    for _ in range(together.index(what.session) if what.session in together else 0):
        if below is None or below not in tree:
            break
        below_it.append(tree[below])
        below = tree[below].parent
    return below_it


def root(tree: Tree, gos: Gos, what: Began | Learned) -> str | None:
    """What a candidate grew from: its parent, or that of the first session that is judged with it; None: the base model."""
    return [what, *mates(tree, gos, what)][-1].parent


def release_of(learned: Learned) -> str:
    """Which release of Evergreen learned a session; the first noted none."""
    return str(learned.versions.get("evergreen-clip") or "0.1.0")


@dataclass
class Line:
    """The tree, and the states from the first session to the head in their order."""

    tree: dict[str, Learned] = field(default_factory=dict)
    since: dict[str, str] = field(default_factory=dict)  # when each was first learned
    gos: dict[str, tuple[str, ...]] = field(default_factory=dict)
    states: dict[str, Learned] = field(default_factory=dict)

    @property
    def head(self) -> str | None:
        """The last state; None: the base model."""
        return next(reversed(self.states), None)

    def know(self, learned: Learned, when: str) -> None:
        """Put a state into the tree."""
        self.tree[learned.state] = learned
        self.since.setdefault(learned.state, when)

    def graft(self, line: Sequence[Learned], when: str) -> None:
        """Put a whole line into the tree.

        Raises:
            StoreError: a state does not stand on the one before it.
        """
        before = None
        for learned in line:
            if learned.parent != before:
                raise StoreError(f"{learned.state} stands on {learned.parent}, and the line before it ends in {before}")
            self.know(learned, learned.happened or when)
            before = learned.state

    def known(self, state: str) -> Learned:
        """A state of the tree.

        Raises:
            StoreError: it is not in there.
        """
        if state not in self.tree:
            raise StoreError(f"nothing before it learned the state {state}")
        return self.tree[state]

    def stands(self, learned: Learned) -> bool:
        """Whether a candidate grew from the head."""
        return root(self.tree, self.gos, learned) == self.head

    def grow(self, learned: Learned) -> None:
        """Make a candidate the head that grew from it."""
        if learned.parent == self.head:
            self.states[learned.state] = learned
        else:
            self.choose(learned.state)

    def choose(self, state: str) -> list[Learned]:
        """Make a state the head, whatever was; returns the line's states of whose sessions none is left.

        Raises:
            StoreError: a state that it stands on was never learned.
        """
        line: dict[str, Learned] = {}
        above: str | None = state
        while above is not None:
            if above in line:
                raise StoreError(f"the state {above} stands on itself")
            line[above] = self.known(above)
            above = line[above].parent
        before, self.states = self.states, dict(reversed(line.items()))
        stay = {learned.session for learned in line.values()}
        return [learned for learned in before.values() if learned.session not in stay]
