"""Stands for pydot where there is none: remembers what is drawn."""

import sys


class Node(object):
    def __init__(self, name, **style):
        self.drawn = [name, sorted(style.items())]


class Edge(object):
    def __init__(self, source, target, label):
        self.drawn = [source.drawn[0], target.drawn[0], label]


class Dot(object):
    def __init__(self, name, **settings):
        self.drawn = [[name, sorted(settings.items())]]

    def add_node(self, node):
        self.drawn.append(node.drawn)

    def add_edge(self, edge):
        self.drawn.append(edge.drawn)

    def create(self, format):  # noqa: A002
        return repr((format, len(self.drawn))).encode()


sys.modules["pydot"] = sys.modules[__name__]
