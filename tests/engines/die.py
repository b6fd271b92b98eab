"""A handler that kills the process it is in."""

import os
import signal

import ignite.distributed as idist
from ignite.engine import Events


class Die:
    """SIGKILL for one rank when it has processed so many subjects."""

    def __init__(self, rank, after):
        self.rank, self.after = rank, after

    def attach(self, engine):
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.look)

    def look(self, engine):
        if idist.get_rank() == self.rank and engine.state.iteration == self.after:
            os.kill(os.getpid(), signal.SIGKILL)
