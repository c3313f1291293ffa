"""Ray's side of flexray: the only room (beside serving) that imports ray.

client process        client.py, classes.py, dispatch.py, session.py, call.py
scheduler actor       scheduler_actor.py for others, scheduler_shell.py around the pure core, clients.py, nodes.py
node agent            node_agent.py, claims.py
slice                 slice_actor.py, run_queue.py, confine.py, notes.py
between them          protocol.py (messages), packing.py (bytes), environment.py (whose code)
"""
