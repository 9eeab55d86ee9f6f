# SPDX-License-Identifier: Apache-2.0
"""What the Ray backend uses of Ray, in this process: actors work when they are waited for, machines can be lost."""

import sys
import types


class RayActorError(Exception):
    pass


class ActorUnschedulableError(Exception):
    pass


class GetTimeoutError(Exception):
    pass


class Reference:
    def __init__(self, actor, call):
        self.actor, self.call = actor, call

    def value(self):
        if self.actor.node in self.actor.cluster.lost:
            raise RayActorError("the actor died")
        return self.call()


class Actor:
    def __init__(self, cluster, node, instance):
        self.cluster, self.node, self.instance = cluster, node, instance

    def __getattr__(self, name):
        def remote(*arguments):
            self.cluster.calls.append((self.node, name, *arguments))
            return Reference(self, lambda: getattr(self.instance, name)(*arguments))

        return types.SimpleNamespace(remote=remote)


class Cluster:
    """Installed as `ray` by monkeypatch; `nodes`: {id: processors}."""

    def __init__(self, monkeypatch, nodes):
        self.lost, self.busy, self.never = set(), set(), set()
        self.calls, self.options, self.shut, self.addresses = [], [], 0, []
        ray = types.ModuleType("ray")
        ray.exceptions = types.SimpleNamespace(
            RayActorError=RayActorError, ActorUnschedulableError=ActorUnschedulableError, GetTimeoutError=GetTimeoutError)
        ray.init = lambda address, log_to_driver, logging_level: self.addresses.append(address)
        ray.shutdown = lambda: setattr(self, "shut", self.shut + 1)
        ray.nodes = lambda: [{"NodeID": name, "Alive": cores is not None, "Resources": {"CPU": float(cores or 0)}}
                             for name, cores in nodes.items()]
        ray.remote = self.remote
        ray.get = self.get
        ray.wait = lambda given, num_returns: (given[:num_returns], given[num_returns:])
        strategies = types.ModuleType("ray.util.scheduling_strategies")
        strategies.NodeAffinitySchedulingStrategy = lambda node_id, soft: (node_id, soft)
        for name, module in (("ray", ray), ("ray.util", types.ModuleType("ray.util")),
                             ("ray.util.scheduling_strategies", strategies)):
            monkeypatch.setitem(sys.modules, name, module)
        self.module = ray

    def get(self, given, timeout=None):
        if timeout is not None and given.actor.node in self.busy:
            raise GetTimeoutError
        if given.actor.node in self.never:
            raise ActorUnschedulableError
        return given.value()

    def remote(self, cls):
        def options(**given):
            self.options.append(given)
            node = given["scheduling_strategy"][0]
            return types.SimpleNamespace(remote=lambda *arguments: Actor(self, node, cls(*arguments)))

        return types.SimpleNamespace(options=options)
