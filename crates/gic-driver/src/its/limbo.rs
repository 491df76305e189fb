//! What the ITS may still use after a timeout.
//!
//! Events are discarded and devices unmapped before their LPIs and tables are used for something
//! else. If the ITS does not answer in time, it may still execute those commands later, or what was
//! posted before them. Until it did, nothing of it is given back: the commands that found no room
//! are posted before any other, and what they protect is released when they were consumed. If that
//! never happens it is never reused.

use super::command_queue::{Failed, Span};
use super::error::{ItsError, QueueError};
use super::sequences::{Blocks, Discards};
use super::watch::{Context, Watch};
use super::{Its, State};
use crate::platform::{Platform, Table};
use alloc::collections::{TryReserveError, VecDeque};
use alloc::vec::Vec;
use doorbell_fallible::try_collect;
use gic_arch::its::{Command, Opcode, RdBase};

/// Resources that wait for commands.
#[derive(Debug)]
pub(crate) struct Limbo {
    posted: Span,
    rest: VecDeque<Command>,
    holds: Holds,
}

/// What is given back once the ITS cannot use it any more.
#[derive(Debug)]
pub(crate) enum Holds {
    /// Events of a device that stays, and their LPIs.
    Events(Blocks),
    /// A device's table, and the LPIs of the events that it had to the end.
    Device {
        /// MAPD with V=0.
        unmap: Command,
        itt: Table,
        blocks: Blocks,
    },
}

impl Holds {
    fn blocks(&self) -> &Blocks {
        match self {
            Self::Events(blocks) | Self::Device { blocks, .. } => blocks,
        }
    }

    fn unmap(&self) -> Option<Command> {
        match self {
            Self::Events(_) => None,
            Self::Device { unmap, .. } => Some(*unmap),
        }
    }
}

impl<P: Platform> Its<P> {
    /// Discards those events of blocks of one device that have a route, and gives the blocks back.
    pub(super) fn discard(&self, state: &mut State, blocks: Blocks) {
        self.retire(state, Holds::Events(blocks));
    }

    /// Unmaps a device with the events that it has left, all as one batch, and gives its table and
    /// their LPIs back.
    pub(super) fn retire_device(
        &self,
        state: &mut State,
        unmap: Command,
        itt: Table,
        blocks: Blocks,
    ) {
        self.retire(state, Holds::Device { unmap, itt, blocks });
    }

    /// Executes the commands that end the use of something, and gives it back afterwards.
    fn retire(&self, state: &mut State, holds: Holds) {
        let (result, rest) = self.end_use(&mut state.targets, &holds);
        let Err(Failed { error, span }) = result else { return self.give_back(state, holds) };
        self.note(error.at(self.frame.base));
        if let QueueError::Stalled(refused) = error {
            return self.give_back_unless(refused, state, holds);
        }
        match rest {
            Ok(rest) if span.is_empty() && rest.is_empty() => self.give_back(state, holds),
            Ok(rest) if state.limbo.try_reserve(1).is_ok() => {
                state.limbo.push_back(Limbo { posted: span, rest: rest.into(), holds });
            }
            // Better lost than given to somebody else while the ITS may use it.
            _ => self.note(ItsError::NoMemory("commands that an ITS did not take")),
        }
    }

    /// Executes the commands that end the use of something. Answers with the commands that found no
    /// room.
    fn end_use(
        &self,
        targets: &mut Vec<RdBase>,
        holds: &Holds,
    ) -> (Result<(), Failed>, Result<Vec<Command>, TryReserveError>) {
        targets.clear();
        let blocks = holds.blocks().as_slice();
        let mut commands =
            Discards::new(&self.routes, &self.collections, blocks, holds.unmap(), targets);
        let result = self.queue.run(&self.frame, Context::Task, &mut commands);
        let rest = try_collect(&mut commands);
        // A command for which there is no memory still ends its route.
        commands.for_each(drop);
        (result, rest)
    }

    /// Completes what did not complete in time. Before anything new is posted for a device.
    ///
    /// # Errors
    /// The ITS still does not go on.
    pub(super) fn settle(&self, state: &mut State) -> Result<(), ItsError> {
        while let Some(mut limbo) = state.limbo.pop_front() {
            match self.finish(&mut limbo) {
                Ok(()) => self.give_back(state, limbo.holds),
                Err(QueueError::Stalled(refused)) => {
                    self.give_back_unless(refused, state, limbo.holds);
                }
                Err(error @ (QueueError::Timeout(_) | QueueError::Stopped)) => {
                    state.limbo.push_front(limbo);
                    return Err(error.at(self.frame.base));
                }
            }
        }
        Ok(())
    }

    fn finish(&self, limbo: &mut Limbo) -> Result<(), QueueError> {
        let mut rest = core::iter::from_fn(|| limbo.rest.pop_front());
        let posted = self.queue.run(&self.frame, Context::Task, &mut rest);
        if let Err(Failed { span, .. }) = &posted {
            limbo.posted.extend(span);
        }
        posted.map_err(|failed| failed.error)?;
        self.queue.wait(&self.frame, &mut Watch::new(Context::Task), &limbo.posted)
    }

    /// An event whose discarding was refused was not mapped. But a table whose unmapping was
    /// refused stays the device's: better lost than written to by the ITS when it is somebody
    /// else's.
    fn give_back_unless(&self, refused: Option<Command>, state: &mut State, holds: Holds) {
        let still_mapped = refused.is_some_and(|command| command.opcode() == Opcode::Mapd);
        match holds {
            Holds::Device { blocks, .. } if still_mapped => self.free_lpis(&blocks),
            // The first refusal is known alone: there may have been one of the unmapping behind it.
            // It does no harm twice.
            Holds::Device { unmap, itt, blocks } if !blocks.as_slice().is_empty() => {
                self.free_lpis(&blocks);
                self.retire_device(state, unmap, itt, Blocks::None);
            }
            holds => self.give_back(state, holds),
        }
    }

    fn give_back(&self, state: &mut State, holds: Holds) {
        match holds {
            Holds::Device { itt, blocks, .. } => {
                self.free_lpis(&blocks);
                self.platform().release_table(itt);
            }
            Holds::Events(blocks) => {
                self.free_lpis(&blocks);
                for block in blocks.as_slice() {
                    if let Some(known) = state.devices.get_mut(block.device) {
                        known.give_events_back(block.first_event, block.count);
                    }
                }
                if let Some(block) = blocks.as_slice().first() {
                    self.drop_unused(state, block.device);
                }
            }
        }
    }

    pub(super) fn free_lpis(&self, blocks: &Blocks) {
        for block in blocks.as_slice() {
            let freed = self.lpis().free(block.range());
            debug_assert!(freed.is_ok(), "the LPIs were allocated with the events: {freed:?}");
        }
    }
}
